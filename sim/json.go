package sim

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MarshalJSON writes the fields of s that aren't zero, without OnProgress, in the form that
// [Scenario.UnmarshalJSON] reads. It fails for an invalid rate or distribution.
func (s Scenario) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	err := writeStruct(&b, reflect.ValueOf(s))
	return b.Bytes(), err
}

// UnmarshalJSON reads a scenario:
//
//	{"name": "slow", "runs": 3, "clients": 10, "rate": "240", "goodWithin": "1s",
//	 "server": {"service": "logNormal(18ms, 60ms)"},
//	 "incidents": [{"from": "30s", "for": "20s", "slowBy": 10}]}
//
// Names are those of the Go fields, with a lowercase first letter. Durations are texts such as 1m30s;
// [Rate] and [Distribution] describe their texts. A rate can also be a number. Unknown names,
// duplicates, and null are errors. All errors are reported together, with the fields' Go names.
// UnmarshalJSON doesn't call [Scenario.Validate]. If it fails, s doesn't change. It doesn't change
// OnProgress either.
func (s *Scenario) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	read := Scenario{OnProgress: s.OnProgress}
	r := strictReader{Decoder: decoder}
	if err := r.value(reflect.ValueOf(&read).Elem(), "Scenario"); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("sim: Scenario: more text follows the JSON value")
	}
	if r.mistakes != nil {
		return errors.Join(r.mistakes...)
	}
	*s = read
	return nil
}

// jsonName returns the name of a field in JSON, or "" if it has none.
func jsonName(f reflect.StructField) string {
	if f.Type.Kind() == reflect.Func {
		return ""
	}
	return string(unicode.ToLower(rune(f.Name[0]))) + f.Name[1:]
}

func writeStruct(b *bytes.Buffer, v reflect.Value) error {
	open := byte('{')
	for i := range v.NumField() {
		name := jsonName(v.Type().Field(i))
		if name == "" || v.Field(i).IsZero() || v.Field(i).Kind() == reflect.Slice && v.Field(i).Len() == 0 {
			continue
		}
		var value bytes.Buffer
		if err := writeValue(&value, v.Field(i)); err != nil {
			return fmt.Errorf("%w (%s.%s)", err, v.Type().Name(), v.Type().Field(i).Name)
		}
		if value.String() == "{}" { // a Server with defaults only
			continue
		}
		b.WriteByte(open)
		fmt.Fprintf(b, "%q:", name)
		b.Write(value.Bytes())
		open = ','
	}
	if open == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return nil
}

func writeValue(b *bytes.Buffer, v reflect.Value) error {
	switch value := v.Interface().(type) {
	case time.Duration:
		fmt.Fprintf(b, "%q", short(value))
		return nil
	case Rate, Distribution:
		text, err := value.(encoding.TextMarshaler).MarshalText()
		fmt.Fprintf(b, "%q", text)
		return err
	}
	switch v.Kind() {
	case reflect.Struct:
		return writeStruct(b, v)
	case reflect.Slice:
		for i := range v.Len() {
			b.WriteByte("[,"[min(i, 1)])
			if err := writeValue(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	text, err := json.Marshal(v.Interface())
	b.Write(text)
	return err
}

// A strictReader reads JSON into structs and keeps the mistakes that it finds.
type strictReader struct {
	*json.Decoder
	mistakes []error
}

func (r *strictReader) mistake(path, is, must string) {
	const most = 100
	if len(r.mistakes) < most {
		r.mistakes = append(r.mistakes, mistake(path, is, must))
	}
}

// value reads a value into v. It returns an error only for what isn't JSON.
func (r *strictReader) value(v reflect.Value, path string) error {
	token, err := r.Token()
	if err != nil {
		return fmt.Errorf("sim: %s: %w", path, err)
	}
	text, isText := token.(string)
	number, isNumber := token.(json.Number)
	parse := func(into encoding.TextUnmarshaler, text, must string) {
		if err := into.UnmarshalText([]byte(text)); err != nil {
			r.mistakes = append(r.mistakes, fmt.Errorf("sim: %s: %s, must be %s: %s", path, quoted(text), must, strings.TrimPrefix(err.Error(), "sim: ")))
		}
	}
	wrong := func(must string) error {
		is := fmt.Sprint(token)
		switch {
		case isText:
			is = quoted(text)
		case token == nil:
			is = "null"
		case token == json.Delim('{'):
			is = "an object"
		case token == json.Delim('['):
			is = "a list"
		}
		r.mistake(path, is, must)
		return r.skip(token)
	}
	switch field := v.Addr().Interface().(type) {
	case *time.Duration:
		if !isText {
			return wrong(`a duration as text, such as "20s"`)
		}
		d, err := parseDuration(text)
		if err != nil {
			return wrong(`a duration such as "20s"`)
		}
		*field = d
		return nil
	case *Rate:
		if !isText && !isNumber {
			return wrong(`a rate such as "200"`)
		}
		parse(field, text+string(number), "a rate")
		return nil
	case *Distribution:
		if !isText {
			return wrong(`a distribution such as "fixed(20ms)"`)
		}
		parse(field, text, "a distribution")
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		if !isText {
			return wrong("text")
		}
		v.SetString(text)
	case reflect.Bool:
		if token != true && token != false {
			return wrong("true or false")
		}
		v.SetBool(token == true)
	case reflect.Int:
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil {
			return wrong("a whole number")
		}
		v.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(string(number), 10, 64)
		if err != nil {
			return wrong("a whole number, at least 0")
		}
		v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(string(number), 64)
		if err != nil {
			return wrong("a number")
		}
		v.SetFloat(n)
	case reflect.Slice:
		if token != json.Delim('[') {
			return wrong("a list")
		}
		for i := 0; r.More(); i++ {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
			if err := r.value(v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return r.close(path)
	case reflect.Struct:
		if token != json.Delim('{') {
			return wrong("an object")
		}
		return r.object(v, path)
	}
	return nil
}

// object reads the members of an object and its end.
func (r *strictReader) object(v reflect.Value, path string) error {
	fields, names := map[string]int{}, []string{}
	for i := range v.NumField() {
		if name := jsonName(v.Type().Field(i)); name != "" {
			fields[name] = i
			names = append(names, name)
		}
	}
	seen := map[int]bool{}
	for r.More() {
		token, err := r.Token()
		if err != nil {
			return fmt.Errorf("sim: %s: %w", path, err)
		}
		name, _ := token.(string)
		i, known := fields[name]
		if !known || seen[i] {
			must := "one of " + strings.Join(names, ", ")
			if known {
				must = "set once"
			}
			r.mistake(path, quoted(name), must)
			if token, err = r.Token(); err == nil {
				err = r.skip(token)
			}
			if err != nil {
				return fmt.Errorf("sim: %s: %w", path, err)
			}
			continue
		}
		seen[i] = true
		if err := r.value(v.Field(i), path+"."+v.Type().Field(i).Name); err != nil {
			return err
		}
	}
	return r.close(path)
}

// close reads the end of an object or a list.
func (r *strictReader) close(path string) error {
	if _, err := r.Token(); err != nil {
		return fmt.Errorf("sim: %s: %w", path, err)
	}
	return nil
}

// skip reads the rest of the value that begins with the token.
func (r *strictReader) skip(token json.Token) error {
	depth := 0
	for {
		if delim, ok := token.(json.Delim); ok {
			if delim == '{' || delim == '[' {
				depth++
			} else {
				depth--
			}
		}
		if depth == 0 {
			return nil
		}
		var err error
		if token, err = r.Token(); err != nil {
			return fmt.Errorf("sim: %w", err)
		}
	}
}
