package prelude

import "net/http"

var (
	req       *http.Request
	client    *http.Client
	name, url string
)
