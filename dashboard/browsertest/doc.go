// Package browsertest tests the page of package dashboard in Chromium, and takes the screenshots of
// its documentation:
//
//	go test ./dashboard/browsertest
//	go test ./dashboard/browsertest -run TestScreenshots -screenshots ../../docs/dashboard
//
// The tests are skipped without Chromium, unless BROWSERTEST is "required". The script .ci/chromium
// installs it. Accessibility is checked with axe-core, which the tests fetch with npm.
package browsertest
