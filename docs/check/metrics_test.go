package check

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/pipelines"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceprom"
	"github.com/effector-go/resilience/retry"
)

// exported returns the labels of every metric that package resilienceprom exports, by name.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	obs := observe.New(observe.Config{})
	everything := pipelines.EveryKind(obs)
	defer runtime.KeepAlive(everything) // the observer exports the values of live policies
	err := resilience.Run(t.Context(), everything, func(context.Context) error { return retry.Permanent(errors.New("failed")) })
	if err == nil {
		t.Fatal("got no error")
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(resilienceprom.New(obs))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, f := range families {
		names := []string{"job"} // added by Prometheus
		for _, label := range f.GetMetric()[0].GetLabel() {
			names = append(names, label.GetName())
		}
		labels[f.GetName()] = names
		if f.GetMetric()[0].GetHistogram() != nil {
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				labels[f.GetName()+part] = names
			}
			labels[f.GetName()+"_bucket"] = append(slices.Clone(names), "le")
		}
	}
	if len(labels) < 20 {
		t.Fatalf("found only the metrics %v", slices.Collect(maps.Keys(labels)))
	}
	return labels
}

// checkQuery checks that a query of Prometheus is correct, and that the metrics and labels that it
// names are exported.
func checkQuery(t *testing.T, labels map[string][]string, where, query string) {
	t.Helper()
	expr, err := metricsql.Parse(strings.ReplaceAll(query, "$__rate_interval", "5m"))
	if err != nil {
		t.Errorf("%s: %q: %v", where, query, err)
		return
	}
	found := 0
	check := func(expr metricsql.Expr, grouped []string) {
		metricsql.VisitAll(expr, func(e metricsql.Expr) {
			m, ok := e.(*metricsql.MetricExpr)
			if !ok {
				return
			}
			for _, filters := range m.LabelFilterss {
				found++
				name := ""
				for _, f := range filters {
					if f.Label == "__name__" {
						name = f.Value
					}
				}
				known, ok := labels[name]
				if !ok {
					t.Errorf("%s: %q names the metric %q, which is not exported", where, query, name)
					continue
				}
				for _, f := range filters {
					if f.Label != "__name__" && !slices.Contains(known, f.Label) {
						t.Errorf("%s: %q names the label %q; %s has %v", where, query, f.Label, name, known)
					}
				}
				for _, label := range grouped {
					if !slices.Contains(known, label) {
						t.Errorf("%s: %q groups by the label %q; %s has %v", where, query, label, name, known)
					}
				}
			}
		})
	}
	check(expr, nil)
	metricsql.VisitAll(expr, func(e metricsql.Expr) {
		if a, ok := e.(*metricsql.AggrFuncExpr); ok {
			check(a, a.Modifier.Args)
		}
	})
	if found == 0 {
		t.Errorf("%s: %q names no metric", where, query)
	}
}

func TestGrafanaDashboardQueriesExportedMetrics(t *testing.T) {
	labels := exported(t)
	data, err := os.ReadFile(filepath.Join("..", "..", "resilienceprom", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Templating struct {
			List []struct{ Definition string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) < 8 {
		t.Errorf("got %d panels, want 8 or more", len(dashboard.Panels))
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			checkQuery(t, labels, "panel "+panel.Title, target.Expr)
		}
	}
	ofVariable := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`)
	for _, variable := range dashboard.Templating.List {
		if variable.Definition == "" {
			continue
		}
		m := ofVariable.FindStringSubmatch(variable.Definition)
		if m == nil {
			t.Errorf("got the variable %q, want label_values(metric, label)", variable.Definition)
			continue
		}
		checkQuery(t, labels, "variable", "count by ("+m[2]+") ("+m[1]+")")
	}
}

func TestAlertsQueryExportedMetrics(t *testing.T) {
	labels := exported(t)
	data, err := os.ReadFile(filepath.Join("..", "..", "resilienceprom", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(data, &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			n++
			checkQuery(t, labels, rule.Alert, rule.Expr)
			if _, err := time.ParseDuration(rule.For); err != nil || rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%s: got for %q, labels %v, annotations %v, want a time, a severity, and a summary", rule.Alert, rule.For, rule.Labels, rule.Annotations)
			}
		}
	}
	if n < 5 {
		t.Errorf("got %d alerts, want 5 or more", n)
	}
}

func TestObservabilityPageListsExportedMetrics(t *testing.T) {
	labels := exported(t)
	data, err := os.ReadFile(filepath.Join("..", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\|[^`\n]*`(resilience_\\w+)` \\|").FindAllStringSubmatch(string(data), -1) {
		listed[m[1]] = true
		if _, ok := labels[m[1]]; !ok {
			t.Errorf("docs/observability.md lists %s, which is not exported", m[1])
		}
	}
	for name := range labels {
		if !listed[name] && !regexp.MustCompile(`_(bucket|count|sum)$`).MatchString(name) {
			t.Errorf("docs/observability.md doesn't list %s", name)
		}
	}
	queries := regexp.MustCompile("(?m)^\\| [^|`]*\\? [^|`]*\\| `(.*)` \\|$").FindAllStringSubmatch(string(data), -1)
	if len(queries) < 5 {
		t.Errorf("found %d queries on docs/observability.md, want 5 or more", len(queries))
	}
	for _, query := range queries {
		checkQuery(t, labels, "docs/observability.md", strings.ReplaceAll(query[1], `\|`, "|"))
	}
}
