package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// A cache is a file of results, so that an interrupted run can be resumed. It has a line for each:
// the mutant's ID, its change, and what killed it, separated by tabs. It doesn't notice changes of
// other code or tests.
type cache struct {
	mu    sync.Mutex
	file  *os.File          // nil for none
	known map[string]string // what killed a mutant, by ID and change
	err   error             // of writing
}

func openCache(name string) (c *cache, err error) {
	c = &cache{known: map[string]string{}}
	if name == "" {
		return c, nil
	}
	if c.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(c.file)
	for lines.Scan() {
		if i := strings.LastIndex(lines.Text(), "\t"); i >= 0 {
			c.known[lines.Text()[:i]] = lines.Text()[i+1:]
		}
	}
	return c, lines.Err()
}

func (c *cache) get(m *mutant) (r result, ok bool) {
	by, ok := c.known[m.id+"\t"+m.change()]
	return result{m, by}, ok
}

func (c *cache) put(r result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file != nil && c.err == nil {
		_, c.err = fmt.Fprintf(c.file, "%s\t%s\t%s\n", r.id, r.change(), r.killedBy)
	}
}

func (c *cache) close() error {
	if c.file == nil {
		return nil
	}
	return errors.Join(c.err, c.file.Close())
}
