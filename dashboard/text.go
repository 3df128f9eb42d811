package dashboard

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText   = 200 // characters of a text that is shown
	cutByThem = 480 // bytes from which package observe, which cuts at 500, may have cut a text
)

// display returns the name as it is shown. Different names may look the same; their IDs differ.
func display(name string) string {
	if name == "" {
		return "(unnamed)"
	}
	return printable(name)
}

// printable replaces what cannot be printed, or turns the direction of text, by Go's escapes, such
// as \u202e, and cuts the text to 200 characters.
func printable(text string) string {
	if len(text) <= maxText && isPlain(text) {
		return text
	}
	var b strings.Builder
	count := 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		shown := text[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			shown = `\x` + string("0123456789abcdef"[text[i]>>4]) + string("0123456789abcdef"[text[i]&15])
		case !unicode.IsPrint(r):
			shown = strconv.QuoteRuneToASCII(r)
			shown = shown[1 : len(shown)-1]
		}
		i += size
		n := utf8.RuneCountInString(shown)
		if count+n > maxText || count+n == maxText && i < len(text) { // one character is for the ellipsis
			b.WriteString("…")
			break
		}
		b.WriteString(shown)
		count += n
	}
	return b.String()
}

func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// redact returns a text, of an error, a cause, or a configuration, without what is often secret in
// it: user info, query, and fragment of URLs, and the query of relative ones. Each is replaced by an
// ellipsis. It prefers removing too much: what follows a question mark inside a word is a query, and
// what is between a colon and an @ inside a word is a password. The result is printable.
func redact(text string) string {
	if len(text) >= cutByThem {
		// The last word may be the beginning of a URL, cut between the password and its @.
		text = text[:strings.LastIndexFunc(text, isSpace)+1] + "…"
	}
	if !strings.ContainsAny(text, "?@#") {
		return printable(text)
	}
	var b strings.Builder
	for text != "" {
		quote := strings.IndexByte(text, '"')
		if quote < 0 {
			redactWords(&b, text)
			break
		}
		word := text[strings.LastIndexFunc(text[:quote], isSpace)+1 : quote]
		if strings.ContainsAny(word, "?@") || strings.Contains(word, "//") {
			// A URL without quotation marks around it, which contains one.
			end := len(text)
			if i := strings.IndexFunc(text[quote:], isSpace); i >= 0 {
				end = quote + i
			}
			redactWords(&b, text[:end])
			text = text[end:]
			continue
		}
		redactWords(&b, text[:quote])
		b.WriteByte('"')
		text = text[quote+1:]
		end := closingQuote(text)
		if quoted := text[:end]; hasURL(quoted) {
			redactURL(&b, quoted) // which may contain spaces, unlike one without quotation marks
		} else {
			redactWords(&b, quoted)
		}
		text = text[end:]
		if text != "" {
			b.WriteByte('"')
			text = text[1:]
		}
	}
	return printable(b.String())
}

// isSpace reports whether r ends a word. Other spaces can be part of a URL.
func isSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// closingQuote returns the index of the first quotation mark that is not escaped, or the length.
func closingQuote(text string) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(text)
}

// hasURL reports whether a text between quotation marks may contain an absolute URL or a query.
func hasURL(quoted string) bool {
	if strings.Contains(quoted, "//") {
		return true
	}
	for i := 1; i+1 < len(quoted); i++ {
		if quoted[i] == '?' && !isSpace(rune(quoted[i-1])) && !isSpace(rune(quoted[i+1])) {
			return true
		}
	}
	return false
}

// redactWords writes a text of words that may be URLs.
func redactWords(b *strings.Builder, text string) {
	for text != "" {
		end := strings.IndexFunc(text, isSpace)
		if end < 0 {
			end = len(text)
		}
		redactURL(b, text[:end])
		text = text[end:]
		spaces := len(text) - len(strings.TrimLeftFunc(text, isSpace))
		b.WriteString(text[:spaces])
		text = text[spaces:]
	}
}

// redactURL writes a word that may contain URLs, or be a relative one.
func redactURL(b *strings.Builder, s string) {
	absolute := strings.Contains(s, "//")
	if !absolute {
		s = dropUserInfo(b, s)
	}
	for s != "" {
		i := strings.IndexAny(s, "/?#")
		if i < 0 {
			break
		}
		switch {
		case strings.HasPrefix(s[i:], "//"):
			b.WriteString(s[:i+2])
			s = dropUserInfo(b, s[i+2:])
		case s[i] == '?' && i+1 < len(s), s[i] == '#' && absolute && i+1 < len(s):
			b.WriteString(s[:i+1])
			b.WriteString("…")
			return
		default:
			b.WriteString(s[:i+1])
			s = s[i+1:]
		}
	}
	b.WriteString(s)
}

// dropUserInfo returns the rest of s behind the user info with which it begins, if it does.
func dropUserInfo(b *strings.Builder, s string) string {
	authority := s
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		authority = s[:i]
	}
	at := strings.LastIndexByte(authority, '@')
	if at < 0 {
		colon := strings.IndexByte(authority, ':')
		if colon < 0 {
			return s
		}
		// A password may contain a slash, a question mark, or a number sign that should have been
		// escaped. Behind a port, these begin the path, the query, and the fragment.
		rest := s
		if port := authority[colon+1:]; isNumber(port) {
			if i := strings.IndexAny(s, "?#"); i >= 0 {
				rest = s[:i]
			}
		}
		if at = strings.LastIndexByte(rest, '@'); at < 0 {
			return s
		}
	}
	if at > 0 {
		b.WriteString("…")
	}
	return s[at:]
}

func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
