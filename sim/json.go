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
// duplicates, and null are errors. All errors are reported together, as by [Scenario.Validate], which
// UnmarshalJSON doesn't call, with the fields' Go names. If it fails, s doesn't change. It doesn't
// change OnProgress either.
func (s *Scenario) UnmarshalJSON(data []byte) error {
	r := strictReader{Decoder: json.NewDecoder(bytes.NewReader(data))}
	r.UseNumber()
	read := Scenario{OnProgress: s.OnProgress}
	if err := r.value(reflect.ValueOf(&read).Elem(), "Scenario"); err != nil {
		return err
	}
	if _, err := r.Token(); err != io.EOF {
		return errors.New("sim: Scenario: more text follows the JSON value")
	}
	if err := r.err(); err != nil {
		return err
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
	mistakes
}

// next reads a token of the value at the path. It returns an error only for what isn't JSON, and so
// do the methods below.
func (r *strictReader) next(path string) (json.Token, error) {
	token, err := r.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("sim: %s: %w", path, err)
	}
	return token, nil
}

// value reads a value into v.
func (r *strictReader) value(v reflect.Value, path string) error {
	token, err := r.next(path)
	if err != nil {
		return err
	}
	_, isText := v.Addr().Interface().(encoding.TextUnmarshaler)
	switch {
	case v.Kind() == reflect.Slice && token == json.Delim('['):
		return r.list(v, path)
	case v.Kind() == reflect.Struct && !isText && token == json.Delim('{'):
		return r.object(v, path)
	}
	if number, ok := token.(json.Number); ok && v.Type() == reflect.TypeFor[Rate]() {
		token = number.String() // 200 is as good as "200"
	}
	if must := set(v, token); must != "" {
		r.report(path, described(token), must)
	}
	return r.skip(token, path)
}

// set sets v to a token that is a text, a number, or a boolean. If it can't, it returns what the
// token must be.
func set(v reflect.Value, token json.Token) (must string) {
	text, isText := token.(string)
	number, _ := token.(json.Number)
	switch field := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := parseDuration(text)
		switch {
		case !isText:
			return `a duration as text, such as "20s"`
		case err != nil:
			return `a duration such as "20s"`
		}
		*field = d
		return ""
	case *Rate:
		return setText(field, text, isText, "a rate", "200")
	case *Distribution:
		return setText(field, text, isText, "a distribution", "fixed(20ms)")
	}
	switch v.Kind() {
	case reflect.String:
		if !isText {
			return "text"
		}
		v.SetString(text)
	case reflect.Bool:
		truth, ok := token.(bool)
		if !ok {
			return "true or false"
		}
		v.SetBool(truth)
	case reflect.Int:
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil {
			return "a whole number"
		}
		v.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(string(number), 10, 64)
		if err != nil {
			return "a whole number, at least 0"
		}
		v.SetUint(n)
	case reflect.Float64:
		n, err := strconv.ParseFloat(string(number), 64)
		if err != nil {
			return "a number"
		}
		v.SetFloat(n)
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "an object"
	}
	return ""
}

// setText sets a rate or a distribution. If it can't, it returns what the text must be.
func setText(field encoding.TextUnmarshaler, text string, isText bool, what, example string) (must string) {
	if !isText {
		return what + " such as " + strconv.Quote(example)
	}
	if err := field.UnmarshalText([]byte(text)); err != nil {
		return what + ": " + strings.TrimPrefix(err.Error(), "sim: ")
	}
	return ""
}

// described returns a token in words, for an error.
func described(token json.Token) string {
	switch t := token.(type) {
	case string:
		return quoted(t)
	case nil:
		return "null"
	case json.Delim:
		if t == '{' {
			return "an object"
		}
		return "a list"
	}
	return fmt.Sprint(token)
}

// list reads the elements of a list and its end.
func (r *strictReader) list(v reflect.Value, path string) error {
	for i := 0; r.More(); i++ {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if err := r.value(v.Index(i), fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	return r.close(path)
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
		token, err := r.next(path)
		if err != nil {
			return err
		}
		name, _ := token.(string)
		i, known := fields[name]
		switch {
		case !known:
			r.report(path, quoted(name), "one of "+strings.Join(names, ", "))
		case seen[i]:
			r.report(path, quoted(name), "set once")
		default:
			seen[i] = true
			if err := r.value(v.Field(i), path+"."+v.Type().Field(i).Name); err != nil {
				return err
			}
			continue
		}
		if token, err = r.next(path); err == nil {
			err = r.skip(token, path)
		}
		if err != nil {
			return err
		}
	}
	return r.close(path)
}

// close reads the end of an object or a list.
func (r *strictReader) close(path string) error {
	_, err := r.next(path)
	return err
}

// skip reads the rest of the value that begins with the token.
func (r *strictReader) skip(token json.Token, path string) error {
	for depth := 0; ; {
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		var err error
		if token, err = r.next(path); err != nil {
			return err
		}
	}
}
