package observe

import "container/list"

// names are values by key, such as a name, with a limit. A key that is no longer in use stays until
// another one needs its room. The observer's mutex guards names.
type names[K comparable, V any] struct {
	max    int
	named  map[K]*named[K, V]
	unused *list.List // of *named[K, V], the one unused for the longest time first
}

// named is the value of a key.
type named[K comparable, V any] struct {
	key    K
	value  V
	users  int           // live pipelines or policies with this key
	unused *list.Element // nil while users > 0
}

func newNames[K comparable, V any](limit int) *names[K, V] {
	return &names[K, V]{limit, map[K]*named[K, V]{}, list.New()}
}

// use adds a user to the key, whose value it creates if necessary. It returns nil if there is no room
// because all keys are in use.
func (n *names[K, V]) use(key K, create func() V) *named[K, V] {
	e := n.named[key]
	if e == nil {
		if len(n.named) >= n.max && !n.removeUnused() {
			return nil
		}
		e = &named[K, V]{key: key, value: create()}
		n.named[key] = e
	}
	if e.unused != nil {
		n.unused.Remove(e.unused)
		e.unused = nil
	}
	e.users++
	return e
}

// removeUnused removes the key that has been unused for the longest time. It reports whether there
// was one.
func (n *names[K, V]) removeUnused() bool {
	oldest := n.unused.Front()
	if oldest == nil {
		return false
	}
	e := n.unused.Remove(oldest).(*named[K, V])
	delete(n.named, e.key)
	return true
}

// leave removes a user.
func (n *names[K, V]) leave(e *named[K, V]) {
	if e.users--; e.users == 0 {
		e.unused = n.unused.PushBack(e)
	}
}
