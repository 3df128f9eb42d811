package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// An asset is a static file. Its served name contains the hash of its content, so browsers can keep
// it forever.
type asset struct {
	contentType       string
	plain, compressed []byte
}

var (
	assets     = map[string]*asset{} // by served name
	assetNames = map[string]string{} // served names by file name
	build      = loadAssets()        // the hash of all of them and of the page
)

// loadAssets fills assets and assetNames, and returns the hash of all files.
func loadAssets() string {
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	entries, err := static.ReadDir("static")
	if err != nil {
		panic(err) // the files are embedded
	}
	all := sha256.New()
	for _, entry := range entries {
		content, err := static.ReadFile("static/" + entry.Name())
		if err != nil {
			panic(err)
		}
		all.Write(content)
		ext := path.Ext(entry.Name())
		if types[ext] == "" {
			continue // the page's template
		}
		sum := sha256.Sum256(content)
		served := strings.TrimSuffix(entry.Name(), ext) + "-" + hex.EncodeToString(sum[:6]) + ext
		assets[served] = &asset{types[ext], content, compress(content)}
		assetNames[entry.Name()] = served
	}
	return hex.EncodeToString(all.Sum(nil)[:8])
}

// serve sends the file.
func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	write(w, r, a.contentType, http.StatusOK, a.plain, func() []byte { return a.compressed })
}

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"static":   func(name string) string { return "static/" + assetNames[name] },
	"percent":  percent,
	"duration": func(bounds []float64, s *float64) string { return latency(bounds, s) },
	"rate":     func(n number) string { return rate(float64(n)) },
	"time":     func(t time.Time) string { return t.Format("2006-01-02 15:04:05 MST") },
	"age":      func(now, then time.Time) string { return age(now.Sub(then)) },
	"sign":     func(l level) string { return [...]string{"✕", "!", "✓", "–"}[l] },
	"value":    func(n number, unit string) string { return value(float64(n), unit) },
	"words":    func(name string) string { return strings.ReplaceAll(name, "_", " ") },
}).ParseFS(static, "static/page.html"))

// pageData is what the template of the page shows. The second part is only for the tables that browsers
// without JavaScript show.
type pageData struct {
	Title    string
	Host     string
	PID      int
	Instance string
	Token    string // empty if Control refuses
	State    *state // nil if no sample has succeeded
	Fresh    bool   // the latest sample succeeded
	Troubles []trouble

	Missing   string            // what the query asks for and there isn't: "pipeline", "policy", or ""
	Pipeline  *pipelineJSON     // that the query asks for, or nil
	Policy    *policyJSON       // that the query asks for, or nil
	Changes   []changeJSON      // of Policy
	Pipelines []pipelineJSON    // that match the search
	Names     map[string]string // of all pipelines, by ID
	Only      bool              // pipelines in trouble
	Query     string            // what is searched for in names
}

// page returns the page for a query, and its status. Without a state, p is nil.
func (d *Dashboard) page(p *published, fresh bool, query url.Values, token string) ([]byte, int) {
	data := pageData{
		Title: printable(d.config.Title), Host: printable(d.host), Instance: d.instance, Token: token, Fresh: fresh,
		Only: query.Get("trouble") == "1", Query: query.Get("q"),
	}
	code := http.StatusOK
	if p != nil {
		d.choose(&data, p.state, query)
	}
	if data.Missing != "" {
		code = http.StatusNotFound
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, data); err != nil {
		return []byte("dashboard: " + template.HTMLEscapeString(err.Error())), http.StatusInternalServerError
	}
	return b.Bytes(), code
}

// choose fills data with what the query asks for: a pipeline, a policy, or the pipelines of a search.
func (d *Dashboard) choose(data *pageData, s *state, query url.Values) {
	data.State, data.PID, data.Troubles, data.Names = s, s.PID, s.Troubles, map[string]string{}
	for _, p := range s.Pipelines {
		data.Names[p.ID] = p.Name
	}
	switch {
	case query.Has("pipeline"):
		id := query.Get("pipeline")
		i := slices.IndexFunc(s.Pipelines, func(p pipelineJSON) bool { return p.ID == id })
		if i < 0 {
			data.Missing = "pipeline"
			return
		}
		data.Pipeline = &s.Pipelines[i]
		data.Troubles = filter(s.Troubles, func(t trouble) bool { return slices.Contains(t.Pipelines, id) })
	case query.Has("policy"):
		id := query.Get("policy")
		i := slices.IndexFunc(s.Policies, func(p policyJSON) bool { return p.ID == id })
		if i < 0 {
			data.Missing = "policy"
			return
		}
		data.Policy = &s.Policies[i]
		data.Changes = d.changesOf(id)
		data.Troubles = filter(s.Troubles, func(t trouble) bool { return t.Policy == id })
	default:
		q := strings.ToLower(data.Query)
		data.Pipelines = filter(s.Pipelines, func(p pipelineJSON) bool {
			return (!data.Only || p.Level.bad()) && strings.Contains(strings.ToLower(p.Name), q)
		})
	}
}

// filter returns the elements for which keep returns true.
func filter[T any](list []T, keep func(T) bool) []T {
	var kept []T
	for _, element := range list {
		if keep(element) {
			kept = append(kept, element)
		}
	}
	return kept
}

// changesOf returns the latest changes of a policy.
func (d *Dashboard) changesOf(policy string) []changeJSON {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.recorder.policies {
		if m.id == policy {
			return m.changes // replaced, never modified
		}
	}
	return nil
}

// The following formats are those of the script.

// percent never rounds up to 100%, nor down to 0%.
func percent(share *float64) string {
	switch {
	case share == nil:
		return "–"
	case *share >= 1:
		return "100%"
	case *share >= 0.99:
		return strconv.FormatFloat(math.Floor(*share*1000+1e-9)/10, 'f', 1, 64) + "%"
	case *share > 0 && *share < 0.01:
		return "<1%"
	}
	return strconv.FormatFloat(*share*100, 'f', 0, 64) + "%"
}

// latency returns a quantile: its histogram doesn't distinguish times below the first bound or above the
// last one.
func latency(bounds []float64, s *float64) string {
	switch {
	case s == nil:
		return "–"
	case len(bounds) > 0 && *s >= bounds[len(bounds)-1]:
		return ">" + short(bounds[len(bounds)-1])
	case len(bounds) > 0 && *s <= bounds[0]:
		return "<" + short(bounds[0])
	}
	return short(*s)
}

// short returns a time in seconds with about two digits.
func short(s float64) string {
	two := func(v float64, unit string) string {
		if v < 9.95 {
			return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + unit
		}
		return strconv.FormatFloat(v, 'f', 0, 64) + " " + unit
	}
	switch {
	case s == 0:
		return "0 s"
	case s < 0.0009995:
		return two(s*1e6, "µs")
	case s < 0.9995:
		return two(s*1e3, "ms")
	case s < 120:
		return two(s, "s")
	}
	return age(time.Duration(min(s, 9e9) * float64(time.Second))) // a Duration has room for 9.2e9 s
}

// rate returns a number per second.
func rate(r float64) string {
	switch {
	case r == 0:
		return "0"
	case r < 0.05:
		return "<0.1"
	case r < 9.95:
		return strings.TrimSuffix(strconv.FormatFloat(r, 'f', 1, 64), ".0")
	}
	digits := strconv.FormatFloat(r, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// age returns a duration with its two largest units.
func age(d time.Duration) string {
	s := int64(max(0, d).Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
}

// value returns a value of a Report.
func value(v float64, unit string) string {
	switch {
	case v != v || v > 1e300 || v < -1e300:
		return "–"
	case unit == "s":
		return short(v)
	}
	text := strconv.FormatFloat(v, 'f', 2, 64)
	text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	if strings.HasSuffix(unit, "/s") {
		text += "/s"
	}
	return text
}
