package dashboard

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestRedactRemovesSecretsOfURLs(t *testing.T) {
	for text, want := range map[string]string{
		`Post "https://user:secret@payments.internal/v1/charge?key=secret": refused`: `Post "https://…@payments.internal/v1/charge?…": refused`,
		"https://secret@host/path":                           "https://…@host/path",
		"https://host/path#secret done":                      "https://host/path#… done",
		"GET /v1/users?token=secret: 404":                    "GET /v1/users?… 404",
		"search?q=secret":                                    "search?…",
		"?q=secret":                                          "?…",
		"//user:secret@host/":                                "//…@host/",
		"postgres://user:sec/ret@host/db":                    "postgres://…@host/db",
		"postgres://user:sec?ret@host/db":                    "postgres://…@host/db",
		"postgres://user:sec#ret@host/db":                    "postgres://…@host/db",
		"user:secret@tcp(host:3306)/db":                      "…@tcp(host:3306)/db",
		`parse "https://user:sec ret@host": invalid`:         `parse "https://…@host": invalid`,
		`https://host/?a="secret" then`:                      "https://host/?… then",
		`https://user:"secret@host/`:                         "https://…@host/",
		`"https://host/?a=\"secret\"&b": x`:                  `"https://host/?…": x`,
		`GET "/path?name=John secret": 500`:                  `GET "/path?…": 500`,
		"https://a/https://user:secret@b/":                   "https://a/https://…@b/",
		"https://u:secret@a,https://u:secret@b/":             "https://…@a,https://…@b/",
		"https://host:8080/path, port 80 #12 ok? yes: a@b.c": "https://host:8080/path, port 80 #12 ok? yes: …@b.c",
		"https://host:8080/a?b@c":                            "https://host:8080/a?…",
		"dial tcp [::1]:443: connect: connection refused":    "dial tcp [::1]:443: connect: connection refused",
		"what? no":      "what? no",
		`is "it" true?`: `is "it" true?`,
		"":              "",
	} {
		if got := redact(text); got != want {
			t.Errorf("redact(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestRedactRemovesURLThatObserveCut(t *testing.T) {
	text := "https://host/?" + strings.Repeat("a", 440) + " https://user:secretsecretsecretsecret"
	if got, want := redact(text[:490]), "https://host/?… …"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrintableCutsAt200Characters(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat("é", 200):        strings.Repeat("é", 200),
		strings.Repeat("é", 201):        strings.Repeat("é", 199) + "…",
		strings.Repeat("a", 196) + "\n": strings.Repeat("a", 196) + `\n`,
		strings.Repeat("a", 199) + "\n": strings.Repeat("a", 199) + "…",
	} {
		if got := printable(text); got != want {
			t.Errorf("printable(%q): got %q, want %q", text, got, want)
		}
	}
}

func TestIsPlainFindsWhatPrintableReplaces(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "payments": true, " ~": true, "a\x1f": false, "\x7fa": false, "é": false, "a\n": false,
	} {
		if got := isPlain(text); got != want {
			t.Errorf("isPlain(%q): got %v, want %v", text, got, want)
		}
	}
}

func TestDisplayShowsWhatCannotBePrinted(t *testing.T) {
	for name, want := range map[string]string{
		"":                   "(unnamed)",
		"\u202egnp.exe":      `\u202egnp.exe`,
		"a\u2066b\u200fc":    `a\u2066b\u200fc`,
		"\xff\x00\n":         `\xff\x00\n`,
		"\ufffd":             "\ufffd",
		"<b>é</b>&\"'":       "<b>é</b>&\"'",
		"\U000e0001zw\u200b": `\U000e0001zw\u200b`,
		"שלום":               "שלום",
	} {
		if got := display(name); got != want {
			t.Errorf("display(%q): got %q, want %q", name, got, want)
		}
	}
}

func checkShown(t *testing.T, shown string) {
	t.Helper()
	if n := utf8.RuneCountInString(shown); n > maxText || !utf8.ValidString(shown) {
		t.Errorf("got %d characters in %q, want at most %d, valid", n, shown, maxText)
	}
	for _, r := range shown {
		if !unicode.IsPrint(r) {
			t.Errorf("got %U in %q, want only what can be printed", r, shown)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("Post ", "https", "user", "pass", "host/path", "key=value", `": refused`)
	f.Add(`get "`, "a", "", `p"w`, "h", `"`, `"`)
	f.Add("x", "postgres", "u", "p/w?#", "h", " ", "\n")
	f.Fuzz(func(t *testing.T, before, scheme, user, password, host, query, after string) {
		checkShown(t, redact(before+scheme+"://"+user+":"+password+"@"+host+"?"+query+after))
		// What a URL may contain must not be shown, wherever the URL is.
		const secret = "SECRET"
		if strings.Contains(before+scheme+host+after, "S") || !isURLText(user+password+query) || strings.ContainsAny(host, "@?#\"\\ ") ||
			strings.ContainsAny(before+after, "\"") || strings.ContainsFunc(host+scheme, isSpace) {
			return
		}
		for _, url := range []string{
			scheme + "://" + user + secret + ":" + password + secret + "@" + host + "?" + query + secret,
			"//" + host + "#" + query + secret,
			host + "?" + query + secret,
		} {
			if got := redact(before + " " + url + " " + after); strings.Contains(got, secret) {
				t.Errorf("redact(%q): got %q", before+" "+url+" "+after, got)
			}
			if got := redact(before + ` "` + url + `" ` + after); strings.Contains(got, secret) {
				t.Errorf("redact(%q) in quotation marks: got %q", before+` "`+url+`" `+after, got)
			}
		}
	})
}

// isURLText reports whether s needs no escaping in the user info or the query of a URL.
func isURLText(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=%", c) >= 0) {
			return false
		}
	}
	return true
}

func FuzzNames(f *testing.F) {
	f.Add("breaker", "payments", "break", "erpayments")
	f.Add("", "", "\xff", "\u202e")
	f.Fuzz(func(t *testing.T, kind, name, otherKind, otherName string) {
		checkShown(t, display(name))
		a, b := id(kind, name), id(otherKind, otherName)
		checkID(t, a)
		if same := kind == otherKind && name == otherName; same != (a == b) {
			t.Errorf("id(%q, %q) and id(%q, %q): got %s and %s", kind, name, otherKind, otherName, a, b)
		}
	})
}
