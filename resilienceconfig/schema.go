package resilienceconfig

import (
	"encoding/json"
)

// Schema returns a JSON Schema (draft 2020-12) of files, for editors that complete and check names,
// types, and units. It agrees with [Parse] on them. It knows no ranges, and no names of functions or
// of what the file itself defines. The caller owns the result.
func Schema() []byte {
	type object = map[string]any
	ref := func(name string) object { return object{"$ref": "#/$defs/" + name} }
	variable := object{"type": "string", "pattern": `\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}`}
	orVariable := func(o object) object { return object{"anyOf": []any{o, variable}} }
	duration := object{"anyOf": []any{object{"const": 0}, object{"type": "string", "pattern": durationRegexp}, variable}}
	name := object{"type": []any{"string", "number", "boolean"}} // names are text, whatever they look like

	schedule := object{}
	for _, sk := range schedules {
		params := object{}
		for _, p := range sk.params {
			params[p] = ref("duration")
		}
		schedule[sk.name] = object{"type": "object", "properties": params, "required": sk.params, "additionalProperties": false}
	}
	forms := map[form]any{
		textForm:      name,
		wholeForm:     orVariable(object{"type": "integer"}),
		numberForm:    orVariable(object{"type": "number"}),
		truthForm:     orVariable(object{"type": "boolean"}),
		durationForm:  ref("duration"),
		algorithmForm: orVariable(object{"enum": algorithmNames}),
		scheduleForm: object{"anyOf": []any{name, object{
			"type": "object", "properties": schedule, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
		}}},
		budgetForm:   name,
		functionForm: name,
	}
	fields := func(k *kind) object {
		properties := object{}
		for i := range k.fields {
			f := &k.fields[i]
			properties[f.key] = forms[f.form]
			if word, _ := k.unlimited(f); word != "" {
				properties[f.key] = orVariable(object{"anyOf": []any{object{"type": "integer"}, object{"const": word}}})
			}
		}
		return object{"type": []any{"object", "null"}, "properties": properties, "additionalProperties": false}
	}
	definitions := object{"duration": duration, "budget": fields(budgetKind)}
	policy, item := object{}, object{"use": name}
	for _, k := range kinds {
		definitions[k.name] = fields(k)
		policy[k.name], item[k.name] = ref(k.name), ref(k.name)
	}
	oneOf := func(properties object) object {
		return object{"type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1}
	}
	names := object{"pattern": `^[^\s.\[\]$]+$`}
	section := func(entry any, empty bool) object {
		o := object{"type": []any{"object", "null"}, "propertyNames": names, "additionalProperties": entry}
		if !empty {
			o["type"], o["minProperties"] = "object", 1
		}
		return o
	}
	schema, err := json.MarshalIndent(object{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Pipelines of resilience policies",
		"type":    "object",
		"properties": object{
			"budgets":  section(ref("budget"), true),
			"policies": section(oneOf(policy), true),
			"pipelines": section(object{"type": "array", "items": object{"anyOf": []any{
				object{"const": atMostOnce}, oneOf(item), variable,
			}}}, false),
		},
		"required": []any{"pipelines"}, "additionalProperties": false,
		"$defs": definitions,
	}, "", "  ")
	if err != nil {
		panic(err) // nothing in it can fail
	}
	return append(schema, '\n')
}
