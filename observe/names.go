package observe

import "container/list"

// names are what is kept by name, with a limit. A name that is not in use stays until another one
// needs its place. The observer's mutex guards it.
type names[K comparable, V any] struct {
	max    int
	named  map[K]*named[K, V]
	unused *list.List // of *named[K, V], the longest unused first
}

type named[K comparable, V any] struct {
	key    K
	value  V
	users  int           // live pipelines or policies
	unused *list.Element // nil while users > 0
}

func newNames[K comparable, V any](limit int) *names[K, V] {
	return &names[K, V]{limit, map[K]*named[K, V]{}, list.New()}
}

// use adds a user to the key. It returns nil if there are too many keys and all are in use.
func (n *names[K, V]) use(key K, create func() V) *named[K, V] {
	e := n.named[key]
	switch {
	case e == nil && len(n.named) < n.max:
	case e == nil && n.unused.Len() > 0:
		oldest := n.unused.Remove(n.unused.Front()).(*named[K, V])
		delete(n.named, oldest.key)
	case e == nil:
		return nil
	}
	if e == nil {
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

// leave removes a user.
func (n *names[K, V]) leave(e *named[K, V]) {
	if e.users--; e.users == 0 {
		e.unused = n.unused.PushBack(e)
	}
}
