package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// A cache is a file of results, so that an interrupted run can be resumed. A result counts as long as the files of the mutant's
// package, tests included, are the same; other packages' tests may have changed.
type cache struct {
	mu    sync.Mutex
	file  *os.File          // a line for each result: a key, a tab, and what killed the mutant; nil for none
	known map[string]string // by key
	sums  map[*goPackage]string
	err   error // of writing
}

func openCache(name string) (c *cache, err error) {
	c = &cache{known: map[string]string{}, sums: map[*goPackage]string{}}
	if name == "" {
		return c, nil
	}
	if c.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(c.file)
	for lines.Scan() {
		if key, killedBy, ok := strings.Cut(lines.Text(), "\t"); ok {
			c.known[key] = killedBy
		}
	}
	return c, lines.Err()
}

func (c *cache) close() error {
	if c.file == nil {
		return c.err
	}
	return errors.Join(c.err, c.file.Close())
}

// key identifies the mutant, its change, and its package's files.
func (c *cache) key(m *mutant) string {
	p := m.file.pkg
	if c.sums[p] == "" {
		names, _ := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		hash := sha256.New()
		for _, name := range names {
			text, _ := os.ReadFile(name) // what can't be read doesn't compile either
			fmt.Fprintf(hash, "%s %d\n%s", filepath.Base(name), len(text), text)
		}
		c.sums[p] = fmt.Sprintf("%x", hash.Sum(nil)[:8])
	}
	return c.sums[p] + " " + m.id + " " + m.change()
}

func (c *cache) get(m *mutant) (r result, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by, ok := c.known[c.key(m)]
	return result{m, by}, ok
}

func (c *cache) put(r result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil && c.err == nil {
		_, c.err = fmt.Fprintf(c.file, "%s\t%s\n", c.key(r.mutant), r.killedBy)
	}
}
