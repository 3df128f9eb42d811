// Package diagram ties an SVG to the source that it was drawn from.
package diagram

import (
	"bytes"
	"crypto/sha256"
	"fmt"
)

// Sign returns the SVG with a comment at its end that names the hash of its source.
func Sign(svg, source []byte) []byte {
	return fmt.Appendf(nil, "%s\n%s\n", bytes.TrimSpace(svg), comment(source))
}

// Signed reports whether the SVG was drawn from this source, by the comment that [Sign] adds.
func Signed(svg, source []byte) bool {
	return bytes.HasSuffix(bytes.TrimSpace(svg), []byte("</svg>\n"+comment(source)))
}

func comment(source []byte) string {
	source = bytes.ReplaceAll(source, []byte("\r\n"), []byte("\n")) // as a checkout on Windows may have it
	return fmt.Sprintf("<!-- sha256 of the source: %x -->", sha256.Sum256(source))
}
