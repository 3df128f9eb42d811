package resilienceconfig

import (
	"encoding/json"
	"maps"
)

// Schema returns a JSON Schema (draft 2020-12) of files, for editors that complete and check names,
// types, and units. It agrees with [Parse] on them. It knows no ranges, and no names of functions or
// of what the file itself defines. The caller owns the result.
func Schema() []byte {
	definitions := object{
		"duration": object{"anyOf": []any{
			object{"const": 0}, object{"type": "string", "pattern": durationRegexp}, variableSchema,
		}},
		"budget": fieldsSchema(budgetKind),
	}
	policy := object{}
	for _, k := range kinds {
		definitions[k.name] = fieldsSchema(k)
		policy[k.name] = ref(k.name)
	}
	item := object{"use": nameSchema}
	maps.Copy(item, policy)
	pipeline := object{"type": "array", "items": object{"anyOf": []any{
		object{"const": atMostOnce}, oneOfSchema(item), variableSchema,
	}}}
	pipelines := sectionSchema(pipeline)
	pipelines["type"], pipelines["minProperties"] = "object", 1
	schema, err := json.MarshalIndent(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Pipelines of resilience policies",
		"type":    "object",
		"properties": object{
			"budgets":   sectionSchema(ref("budget")),
			"policies":  sectionSchema(oneOfSchema(policy)),
			"pipelines": pipelines,
		},
		"required": []any{"pipelines"}, "additionalProperties": false,
		"$defs": definitions,
	}, "", "  ")
	if err != nil {
		panic(err) // nothing in it can fail
	}
	return append(schema, '\n')
}

// An object is a JSON Schema, or a part of one.
type object = map[string]any

var (
	variableSchema = object{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`}
	nameSchema     = object{"type": []any{"string", "number", "boolean"}} // names are text, whatever they look like
)

func ref(definition string) object { return object{"$ref": "#/$defs/" + definition} }

func orVariable(o object) object { return object{"anyOf": []any{o, variableSchema}} }

// oneOfSchema is an object with exactly one of the properties.
func oneOfSchema(properties object) object {
	return object{
		"type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
	}
}

// sectionSchema is a section whose entries have names.
func sectionSchema(entry object) object {
	return object{
		"type": []any{"object", "null"}, "propertyNames": object{"pattern": `^[^\s.\[\]$]+$`}, "additionalProperties": entry,
	}
}

// fieldsSchema is the fields of a policy or a budget.
func fieldsSchema(k *kind) object {
	properties := object{}
	for i := range k.fields {
		f := &k.fields[i]
		properties[f.key] = valueSchema(f.form)
		if word, _ := k.unlimited(f); word != "" {
			properties[f.key] = orVariable(object{"anyOf": []any{object{"type": "integer"}, object{"const": word}}})
		}
	}
	return object{"type": []any{"object", "null"}, "properties": properties, "additionalProperties": false}
}

func valueSchema(f form) object {
	switch f {
	case wholeForm:
		return orVariable(object{"type": "integer"})
	case numberForm:
		return orVariable(object{"type": "number"})
	case truthForm:
		return orVariable(object{"type": "boolean"})
	case durationForm:
		return ref("duration")
	case algorithmForm:
		return orVariable(object{"enum": algorithmNames})
	case scheduleForm:
		return object{"anyOf": []any{nameSchema, scheduleSchema()}}
	}
	return nameSchema // text, or the name of a budget or a function
}

func scheduleSchema() object {
	schedule := object{}
	for _, sk := range schedules {
		params := object{}
		for _, p := range sk.params {
			params[p] = ref("duration")
		}
		schedule[sk.name] = object{
			"type": "object", "properties": params, "required": sk.params, "additionalProperties": false,
		}
	}
	return oneOfSchema(schedule)
}
