package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A cache is a file of results, so that an interrupted run can be resumed. A result counts as long as the files of the mutant's
// package, tests included, are the same; other packages' tests may have changed.
type cache struct {
	mu      sync.Mutex
	file    *os.File // nil for none
	results map[string]string
	hashes  map[*goPackage]string
}

// A record is a line of the file.
type record struct{ Key, KilledBy string }

func openCache(name string) (*cache, error) {
	c := &cache{results: map[string]string{}, hashes: map[*goPackage]string{}}
	if name == "" {
		return c, nil
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	c.file = file
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var r record
		if json.Unmarshal(lines.Bytes(), &r) == nil { // the last line may be incomplete
			c.results[r.Key] = r.KilledBy
		}
	}
	return c, nil
}

func (c *cache) close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// key identifies the mutant, its change, and the package's files.
func (c *cache) key(m *mutant) (string, error) {
	p := m.function.file.pkg
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hashes[p] == "" {
		hash := sha256.New()
		names, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		for _, name := range names {
			text, readErr := os.ReadFile(name)
			err = errors.Join(err, readErr)
			fmt.Fprintf(hash, "%s %d\n%s", filepath.Base(name), len(text), text)
		}
		if err != nil {
			return "", err
		}
		c.hashes[p] = fmt.Sprintf("%x", hash.Sum(nil)[:8])
	}
	return m.id + " " + m.change() + " " + c.hashes[p], nil
}

func (c *cache) get(m *mutant) (r result, ok bool, err error) {
	key, err := c.key(m)
	by, ok := c.results[key]
	return result{m, by}, ok, err
}

func (c *cache) put(r result) error {
	if c.file == nil {
		return nil
	}
	key, err := c.key(r.mutant)
	if err != nil {
		return err
	}
	line, err := json.Marshal(record{key, r.killedBy})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.file.Write(append(line, '\n'))
	return err
}
