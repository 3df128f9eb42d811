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

func serveAsset(w http.ResponseWriter, r *http.Request, a *asset) {
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

// pageData is what the template of the page shows. The lists are for browsers without JavaScript.
type pageData struct {
	State     *state
	Title     string
	Host      string
	PID       int
	Instance  string
	Token     string
	Fresh     bool
	Missing   string // "pipeline" or "policy"
	Pipeline  *pipelineJSON
	Policy    *policyJSON
	Changes   []changeJSON
	Troubles  []trouble
	Pipelines []pipelineJSON
	Names     map[string]string // of pipelines by ID
	Only      bool              // trouble
	Query     string
}

// page returns the page for a query, and its status.
func (d *Dashboard) page(p *published, fresh bool, query url.Values, token string) ([]byte, int) {
	data := pageData{
		Title: printable(d.config.Title), Host: printable(d.host), Instance: d.instance, Token: token, Fresh: fresh,
		Only: query.Get("trouble") == "1", Query: query.Get("q"), Names: map[string]string{},
	}
	code := http.StatusOK
	if p != nil {
		s := p.state
		data.State, data.PID, data.Troubles, data.Pipelines = s, s.PID, s.Troubles, s.Pipelines
		for _, pipeline := range s.Pipelines {
			data.Names[pipeline.ID] = pipeline.Name
		}
		switch {
		case query.Has("pipeline"):
			i := slices.IndexFunc(s.Pipelines, func(j pipelineJSON) bool { return j.ID == query.Get("pipeline") })
			if i < 0 {
				code, data.Missing = http.StatusNotFound, "pipeline"
				break
			}
			data.Pipeline = &s.Pipelines[i]
			data.Troubles = slices.DeleteFunc(slices.Clone(s.Troubles), func(t trouble) bool { return !slices.Contains(t.Pipelines, data.Pipeline.ID) })
		case query.Has("policy"):
			i := slices.IndexFunc(s.Policies, func(j policyJSON) bool { return j.ID == query.Get("policy") })
			if i < 0 {
				code, data.Missing = http.StatusNotFound, "policy"
				break
			}
			data.Policy = &s.Policies[i]
			data.Changes = d.changesOf(data.Policy.ID)
			data.Troubles = slices.DeleteFunc(slices.Clone(s.Troubles), func(t trouble) bool { return t.Policy != data.Policy.ID })
		default:
			q := strings.ToLower(data.Query)
			data.Pipelines = slices.DeleteFunc(slices.Clone(s.Pipelines), func(j pipelineJSON) bool {
				return data.Only && !j.Level.bad() || !strings.Contains(strings.ToLower(j.Name), q)
			})
		}
	}
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, data); err != nil {
		return []byte("dashboard: " + template.HTMLEscapeString(err.Error())), http.StatusInternalServerError
	}
	return b.Bytes(), code
}

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
	return age(time.Duration(s * float64(time.Second)))
}

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
