package main

var keyedTable = table{"internal/keyed/store.go", []fault{
	{
		what: "idle keys do not fall away with time",
		old:  "s.expire()\n\tif e = s.entries[key]; e != nil {",
		new:  "if e = s.entries[key]; e != nil {",
	},
	{
		what: "a key falls away a nanosecond late",
		old:  `time.Duration(now-e.idleSince) < s.idleAfter {`,
		new:  `time.Duration(now-e.idleSince) <= s.idleAfter {`,
	},
	{
		what: "a key in use stays among the idle ones",
		old:  "if e.users == 0 {\n\t\t\te.unlink()\n\t\t}\n\t\te.users++",
		new:  "e.users++",
	},
	{
		what: "an entry has one user however many use it",
		old:  "e.users++\n",
		new:  "e.users = 1\n",
	},
	{
		what: "one key more may be there",
		old:  `for len(s.entries) > s.max && `,
		new:  `for len(s.entries) > s.max+1 && `,
	},
	{
		what: "too many keys are let go only when another comes",
		old:  "last.next, s.oldest.prev = e, e\n\ts.shrink()",
		new:  "last.next, s.oldest.prev = e, e",
	},
	{
		what: "too many keys are let go only when one is released",
		old:  "s.entries[key] = e\n\ts.shrink()",
		new:  "s.entries[key] = e",
	},
	{
		what: "the key that was idle shortest falls away",
		old: `e := s.oldest.next
		s.remove(e)`,
		new: `e := s.oldest.prev
		s.remove(e)`,
	},
	{
		what: "nobody hears of what falls away",
		old:  `if s.evicted != nil {`,
		new:  `if false {`,
	},
	{
		what: "a key whose value could not be made stays",
		old:  "if s.entries[e.key] == e {\n\t\t\t\tdelete(s.entries, e.key)\n\t\t\t}",
		new:  "",
	},
	{
		what: "who waited for a value that could not be made gets none",
		old:  "e.gone = true\n",
		new:  "",
	},
	{
		what: "those who wait for a value are not told of it",
		old:  "close(e.made)\n",
		new:  "",
	},
	{
		what: "who comes second does not wait for the value",
		old:  "if !e.there.Load() {\n\t\t\t<-e.made\n\t\t}",
		new:  "",
	},
	{
		what: "who comes second touches what may be of another bubble",
		old:  "if !e.there.Load() {\n\t\t\t<-e.made\n\t\t}",
		new:  "<-e.made",
	},
	{
		what: "a forgotten entry that is released takes the new one's place",
		old:  `if e.users--; e.users > 0 || s.entries[e.key] != e {`,
		new:  `if e.users--; e.users > 0 {`,
	},
	{
		what: "a forgotten idle entry stays in the ring",
		old:  "func (s *Store[K, V]) remove(e *Entry[K, V]) {\n\tif e.users == 0 {",
		new:  "func (s *Store[K, V]) remove(e *Entry[K, V]) {\n\tif false {",
	},
	{
		what: "Look gives a value that is still being made",
		old:  "if !e.there.Load() {\n\t\treturn value, false",
		new:  "if !e.there.Load() {\n\t\treturn e.value, true",
	},
	{
		what: "an unneeded value goes while others use it",
		old:  `if e.users == 1 && s.entries[e.key] == e && unneeded(e.value) {`,
		new:  `if s.entries[e.key] == e && unneeded(e.value) {`,
	},
	{
		what: "an unneeded value stays",
		old:  `if e.users == 1 && s.entries[e.key] == e && unneeded(e.value) {`,
		new:  `if false {`,
	},
}}
