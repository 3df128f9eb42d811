package dashboard

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
)

// id returns the ID of a policy, or of a pipeline if the kind is "pipeline". It is the same in all
// processes, and it differs for all kinds and names, also those that are not valid UTF-8: the length
// in front of the kind keeps ("a", "bc") and ("ab", "c") apart.
func id(kind, name string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(kind)) + " " + kind + name))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
