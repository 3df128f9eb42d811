package keyed

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/internal/clock"
)

func name(key int) (string, bool) { return fmt.Sprint(key), true }

// use acquires and releases keys one after another.
func use(s *Store[int, string], keys ...int) {
	for _, key := range keys {
		s.Release(s.Acquire(key, name))
	}
}

func has(s *Store[int, string], key int) bool {
	_, ok := s.Look(key)
	return ok
}

func TestStoreEvictsKeyIdleLongest(t *testing.T) {
	s := New[int, string](3, 0)
	use(s, 1, 2, 3, 1, 4)
	if !has(s, 1) || has(s, 2) || !has(s, 3) || !has(s, 4) || s.Len() != 3 {
		t.Error("want 2 evicted for 4, because 1 was used after 2")
	}
}

func TestStoreKeepsKeysInUse(t *testing.T) {
	s := New[int, string](1, 0)
	held := []*Entry[int, string]{s.Acquire(1, name), s.Acquire(2, name), s.Acquire(1, name)}
	if s.Len() != 2 {
		t.Errorf("got %d keys, want the 2 that are in use", s.Len())
	}
	s.Release(held[0])
	use(s, 3)
	if !has(s, 1) || !has(s, 2) || has(s, 3) {
		t.Error("want only the idle key evicted")
	}
	s.Release(held[2])
	s.Release(held[1])
	if s.Len() != 1 || !has(s, 2) {
		t.Errorf("got %d keys after the last release, want only the one released last", s.Len())
	}
}

func TestStoreRemovesKeysIdleTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, time.Minute)
		use(s, 1)
		time.Sleep(30 * time.Second)
		use(s, 2)
		long := s.Acquire(3, name)
		time.Sleep(30*time.Second - 1)
		if s.Len() != 3 {
			t.Errorf("got %d keys a nanosecond before the first expires, want 3", s.Len())
		}
		time.Sleep(time.Nanosecond)
		if has(s, 1) || !has(s, 2) {
			t.Error("want 1 removed after a minute and 2 kept")
		}
		time.Sleep(time.Hour)
		if s.Len() != 1 || !has(s, 3) {
			t.Error("want only the key in use kept")
		}
		s.Release(long)
		time.Sleep(time.Minute - 1)
		if !has(s, 3) {
			t.Error("want idle time counted from the last release")
		}
	})
}

// TestStoreCreatesKeyAgainAfterIdleTime checks this for a store that isn't used in the meantime.
func TestStoreCreatesKeyAgainAfterIdleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, time.Minute)
		use(s, 1)
		time.Sleep(time.Minute)
		e := s.Acquire(1, func(int) (string, bool) { return "new", true })
		defer s.Release(e)
		if e.Value() != "new" {
			t.Errorf("got %q, want a new value", e.Value())
		}
	})
}

// TestStoreNewKeyEvictsImmediately checks that eviction doesn't wait for the key's release.
func TestStoreNewKeyEvictsImmediately(t *testing.T) {
	s := New[int, string](2, 0)
	use(s, 1, 2)
	defer s.Release(s.Acquire(3, name))
	if s.Len() != 2 || has(s, 1) {
		t.Errorf("got %d keys, want 2 without the oldest", s.Len())
	}
}

func TestStoreLookIgnoresValueBeingCreated(t *testing.T) {
	s := New[int, string](2, 0)
	e := s.Acquire(1, func(int) (string, bool) {
		if has(s, 1) {
			t.Error("Look found a value that is still being created")
		}
		return "one", true
	})
	defer s.Release(e)
	if !has(s, 1) {
		t.Error("Look didn't find a value that was created")
	}
}

// TestStoreRemovesUnneededValueAfterLastUser also checks that a needed value stays.
func TestStoreRemovesUnneededValueAfterLastUser(t *testing.T) {
	s := New[int, string](2, 0)
	unneeded := func(value string) bool { return value == "1" }
	first, second := s.Acquire(1, name), s.Acquire(1, name)
	s.ReleaseUnneeded(first, unneeded)
	if !has(s, 1) {
		t.Error("removed while another user has it")
	}
	s.ReleaseUnneeded(second, unneeded)
	s.ReleaseUnneeded(s.Acquire(2, name), unneeded)
	if has(s, 1) || !has(s, 2) {
		t.Error("want the unneeded value removed and the needed one kept")
	}
}

func TestStoreHoldsAtMostMaxIdleKeys(t *testing.T) {
	s := New[int, string](100, 0)
	for key := range 100_000 {
		s.Release(s.Acquire(key, func(int) (string, bool) { return "", true }))
	}
	if s.Len() != 100 {
		t.Errorf("got %d keys, want 100", s.Len())
	}
}

func TestStoreConcurrentUsersShareOneValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, 0)
		var made atomic.Int32
		var g errgroup.Group
		for range 20 {
			g.Go(func() error {
				e := s.Acquire(1, func(key int) (string, bool) {
					time.Sleep(time.Second)
					made.Add(1)
					return "one", true
				})
				defer s.Release(e)
				if e.Value() != "one" {
					return fmt.Errorf("got %q, want a new value", e.Value())
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil || made.Load() != 1 {
			t.Errorf("created %d times, %v, want once", made.Load(), err)
		}
	})
}

// TestStoreWaitersRetryFailedCreation checks that neither a refusal nor a panic of make leaves a
// key behind.
func TestStoreWaitersRetryFailedCreation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, 0)
		var calls atomic.Int32
		make := func(key int) (string, bool) {
			time.Sleep(time.Second)
			switch calls.Add(1) {
			case 1:
				panic("first")
			case 2:
				return "", false
			}
			return "third", true
		}
		var g errgroup.Group
		var panicked, refused, got atomic.Int32
		for range 5 {
			g.Go(func() error {
				defer func() {
					if recover() == "first" {
						panicked.Add(1)
					}
				}()
				if e := s.Acquire(1, make); e == nil {
					refused.Add(1)
				} else if e.Value() == "third" {
					got.Add(1)
					s.Release(e)
				}
				return nil
			})
		}
		g.Wait()
		if panicked.Load() != 1 || refused.Load() != 1 || got.Load() != 3 || calls.Load() != 3 || s.Len() != 1 {
			t.Errorf("got %d panicked, %d refused, %d with a value, %d calls, want 1, 1, 3, 3", panicked.Load(), refused.Load(), got.Load(), calls.Load())
		}
	})
}

func TestStoreCreatesForgottenKeyAgain(t *testing.T) {
	s := New[int, string](10, time.Minute)
	old := s.Acquire(1, func(int) (string, bool) { return "old", true })
	s.Forget(1)
	s.Forget(1)
	now := s.Acquire(1, func(int) (string, bool) { return "new", true })
	if old.Value() != "old" || now.Value() != "new" {
		t.Errorf("got %q and %q, want old and new", old.Value(), now.Value())
	}
	s.Release(old)
	s.Release(now)
	if value, ok := s.Look(1); value != "new" || !ok || s.Len() != 1 {
		t.Errorf("got %q, want new", value)
	}
	s.Forget(1)
	if s.Len() != 0 || s.oldest.next != &s.oldest {
		t.Error("a forgotten idle key is still in the ring")
	}
}

// TestStoreConcurrentReleasesRemoveUnneededKey checks that one of several concurrent releases is
// the last.
func TestStoreConcurrentReleasesRemoveUnneededKey(t *testing.T) {
	s := New[int, int](10, 0)
	for round := range 5000 {
		var users errgroup.Group
		entries := make([]*Entry[int, int], 4)
		for i := range entries {
			entries[i] = s.Acquire(1, func(int) (int, bool) { return 1, true })
		}
		for _, e := range entries {
			users.Go(func() error {
				s.ReleaseUnneeded(e, func(int) bool { return true })
				return nil
			})
		}
		if users.Wait(); s.Len() != 0 {
			t.Fatalf("round %d: got %d keys, want 0", round, s.Len())
		}
	}
}

// TestStoreValueOutlivesItsBubble uses a store in one test's bubble, then in another's, then
// outside.
func TestStoreValueOutlivesItsBubble(t *testing.T) {
	s := New[string, int](10, time.Hour)
	use := func(t *testing.T) {
		e := s.Acquire("key", func(string) (int, bool) { return 1, true })
		if e.Value() != 1 {
			t.Errorf("got value %d, want 1", e.Value())
		}
		s.Release(e)
		if value, ok := s.Look("key"); value != 1 || !ok {
			t.Errorf("Look: got %d, %v, want 1, true", value, ok)
		}
	}
	synctest.Test(t, use)
	synctest.Test(t, use)
	use(t)
}

// TestStoreKeepsValuesWhileKeepIfSaysSo, and counts their idle time from then on.
func TestStoreKeepsValuesWhileKeepIfSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, known := range []bool{true, false} {
			s := New[int, string](10, time.Minute)
			keep, since := true, int64(0)
			s.KeepIf(func(value string) (bool, int64) {
				s.Len() // called without the lock
				if value != "1" || !keep {
					return false, since
				}
				return true, 0
			})
			use(s, 1, 2)
			for range 100 {
				time.Sleep(59 * time.Second)
				if !has(s, 1) {
					t.Fatal("a kept key was removed")
				}
			}
			if has(s, 2) {
				t.Error("want the key removed that isn't kept")
			}
			keep = false
			if known {
				since = clock.Now()
			} else if time.Sleep(time.Minute); !has(s, 1) { // counts from when the store notices
				t.Error("the key was removed as soon as it was no longer kept")
			}
			time.Sleep(time.Minute - 1)
			if !has(s, 1) {
				t.Error("the key was removed before its idle time was over")
			}
			if time.Sleep(time.Nanosecond); has(s, 1) {
				t.Error("want the key removed")
			}
		}
	})
}

// TestStoreEvictsKeptValuesLast, and only if there are more of them than the limit.
func TestStoreEvictsKeptValuesLast(t *testing.T) {
	s := New[int, string](3, 0)
	s.KeepIf(func(value string) (bool, int64) { return len(value) == 1, 0 })
	var removed []int
	s.OnRemove(func(key int, value string) {
		s.Len() // called without the lock
		removed = append(removed, key)
	})
	use(s, 1, 2, 10, 11, 12)
	if want := []int{10, 11}; !slices.Equal(removed, want) || s.Len() != 3 {
		t.Errorf("got %v removed, want %v", removed, want)
	}
	use(s, 1, 3, 4)
	if want := []int{10, 11, 12, 2}; !slices.Equal(removed, want) || s.Len() != 3 {
		t.Errorf("got %v removed, want %v", removed, want)
	}
	held := []*Entry[int, string]{s.Acquire(13, name), s.Acquire(14, name)}
	if s.Len() != 5 {
		t.Errorf("got %d keys, want the 3 kept ones and the 2 in use", s.Len())
	}
	s.Release(held[0])
	s.Release(held[1])
	if want := []int{10, 11, 12, 2, 13, 14}; !slices.Equal(removed, want) || s.Len() != 3 || s.nkept != 3 {
		t.Errorf("got %v removed, %d kept, want %v, 3", removed, s.nkept, want)
	}
	s.Forget(1)
	if s.nkept != 2 || s.Len() != 2 {
		t.Errorf("got %d kept of %d after Forget, want 2 of 2", s.nkept, s.Len())
	}
}

// TestStoreUseDuringKeepIfCounts: a key that is used while KeepIf runs isn't removed.
func TestStoreUseDuringKeepIfCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, time.Minute)
		var during *Entry[int, string]
		hold := false
		s.KeepIf(func(value string) (bool, int64) {
			if value == "1" {
				if during = s.Acquire(1, name); !hold {
					s.Release(during)
				}
			}
			return false, 0
		})
		use(s, 1)
		time.Sleep(time.Minute)
		if !has(s, 1) {
			t.Error("a key was removed that was used in the meantime")
		}
		hold = true
		time.Sleep(time.Minute)
		if !has(s, 1) {
			t.Error("a key was removed that is in use")
		}
		s.Release(during)
	})
}

// TestStoreConcurrentEvictionKeepsLimit: several goroutines that evict at the same time remove no more
// than necessary.
func TestStoreConcurrentEvictionKeepsLimit(t *testing.T) {
	s := New[int, string](100, 0)
	s.KeepIf(func(value string) (bool, int64) { runtime.Gosched(); return len(value) == 2, 0 })
	var removed atomic.Int32
	s.OnRemove(func(int, string) { removed.Add(1) })
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for i := range 2000 {
				use(s, 1000*(worker+1)+i)
				use(s, 10+i%50)
				s.Forget(-i)
			}
			return nil
		})
	}
	g.Wait()
	if s.Len() != 100 || s.nkept > 90 {
		t.Errorf("got %d keys, %d kept", s.Len(), s.nkept)
	}
	for key := 10; key < 60; key++ {
		if !has(s, key) {
			t.Errorf("%d was evicted although it must be kept", key)
		}
	}
}

func TestStoreAllListsValues(t *testing.T) {
	s := New[int, string](10, 0)
	use(s, 1, 2)
	e := s.Acquire(3, func(int) (string, bool) {
		if all := s.All(); len(all) != 2 || all[1] != "1" || all[2] != "2" {
			t.Errorf("got %v", all)
		}
		return "3", true
	})
	s.Release(e)
	if all := s.All(); len(all) != 3 || all[3] != "3" {
		t.Errorf("got %v", all)
	}
}

// TestStoreEvictsNoMoreThanNecessary: if room was made while KeepIf ran, the key stays.
func TestStoreEvictsNoMoreThanNecessary(t *testing.T) {
	s := New[int, string](2, 0)
	s.KeepIf(func(value string) (bool, int64) {
		if value == "1" {
			s.Forget(2)
		}
		return false, 0
	})
	use(s, 1, 2, 3)
	if !has(s, 1) || !has(s, 3) || s.Len() != 2 {
		t.Errorf("got %d keys, want 1 and 3", s.Len())
	}
}

// TestStoreInspectedKeyStaysFirst: a key that KeepIf was called for is evicted before others that have
// been idle for as long.
func TestStoreInspectedKeyStaysFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](3, 0)
		s.KeepIf(func(string) (bool, int64) { s.Forget(3); return false, 0 })
		use(s, 1, 2, 3, 4) // inspects 1, which stays, because 3 makes room
		if !has(s, 1) || has(s, 3) {
			t.Error("want 3 removed for 4")
		}
		if use(s, 5); has(s, 1) || !has(s, 2) {
			t.Error("want 1 evicted for 5")
		}
	})
}

// TestStoreReportsKeyEvictedBesideKeysInUse: that keys in use exceed the limit delays no report.
func TestStoreReportsKeyEvictedBesideKeysInUse(t *testing.T) {
	s := New[int, string](1, 0)
	var removed []int
	s.OnRemove(func(key int, _ string) { removed = append(removed, key) })
	first, second := s.Acquire(1, name), s.Acquire(2, name)
	use(s, 3)
	if !slices.Equal(removed, []int{3}) || s.Len() != 2 {
		t.Errorf("got %v removed with %d keys left, want 3 removed with 2 left", removed, s.Len())
	}
	s.Release(first)
	s.Release(second)
}

// TestStoreOnRemoveMayUseKeyBeingCreated: the creation of a key evicts another one, and the function
// registered with OnRemove acquires the new key.
func TestStoreOnRemoveMayUseKeyBeingCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // reports the deadlock
		s := New[int, string](1, time.Minute)
		var removed []int
		s.OnRemove(func(key int, _ string) {
			if removed = append(removed, key); len(removed) == 1 {
				use(s, 2)
			}
		})
		use(s, 1, 2)
		if !slices.Equal(removed, []int{1}) || !has(s, 2) {
			t.Errorf("got %v removed, want 1", removed)
		}
	})
}

// TestStorePanicOfCallbackLeavesKeyUsable: neither of the two functions leaves a key locked or in use.
func TestStorePanicOfCallbackLeavesKeyUsable(t *testing.T) {
	for _, inKeep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) { // reports the deadlock
			s := New[int, string](1, time.Minute)
			fail := false
			s.KeepIf(func(string) (bool, int64) {
				if fail && inKeep {
					panic("keep")
				}
				return false, 0
			})
			s.OnRemove(func(int, string) {
				if fail && !inKeep {
					panic("removed")
				}
			})
			use(s, 1)
			fail = true
			func() {
				defer func() {
					if recover() == nil {
						t.Error("want a panic")
					}
				}()
				use(s, 2)
			}()
			fail = false
			use(s, 2)
			time.Sleep(time.Minute)
			if n := s.Len(); n != 0 {
				t.Errorf("inKeep %v: got %d keys a minute later, want 0", inKeep, n)
			}
		})
	}
}

// TestStoreOnRemoveDoesNotNest: a function that uses the store isn't called within itself, so many
// keys that expire together need no deep stack.
func TestStoreOnRemoveDoesNotNest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](1000, time.Minute)
		depth, deepest, removed := 0, 0, 0
		s.OnRemove(func(int, string) {
			depth++
			deepest = max(deepest, depth)
			removed++
			s.Len()
			depth--
		})
		for key := range 100 {
			use(s, key)
		}
		time.Sleep(time.Minute)
		if s.Len(); removed != 100 || deepest != 1 {
			t.Errorf("got %d removed, nested %d deep, want 100, 1", removed, deepest)
		}
	})
}

// TestStoreRemovesRecoveredKeysInOrder: keys that need no longer be kept expire in the order of the
// times that KeepIf reports, among keys that were never kept.
func TestStoreRemovesRecoveredKeysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys = 100
		s := New[int, string](keys, time.Minute)
		keep, recovered := true, clock.Now()
		random := rand.New(rand.NewPCG(1, 2))
		seconds := random.Perm(keys) // after the recovery, for each key
		s.KeepIf(func(value string) (bool, int64) {
			key, _ := strconv.Atoi(value)
			if key%4 == 0 {
				return false, 0
			}
			return keep, recovered + int64(seconds[key])*int64(time.Second)
		})
		for key := range keys {
			if key%4 != 0 {
				use(s, key)
			}
		}
		time.Sleep(time.Minute)
		s.Len() // notices that they must be kept
		keep, recovered = false, clock.Now()
		for second := range keys {
			for key := 0; key < keys; key += 4 {
				if seconds[key] == second {
					use(s, key)
				}
			}
			if second < keys-1 {
				time.Sleep(time.Second)
			}
			for key := range keys {
				due := recovered + int64(seconds[key])*int64(time.Second) + int64(time.Minute)
				used := key%4 != 0 || seconds[key] <= second
				if got, want := has(s, key), used && clock.Now() < due; got != want {
					t.Fatalf("second %d, key %d, idle since second %d: got %v in the store, want %v", second, key, seconds[key], got, want)
				}
			}
		}
	})
}

// BenchmarkStoreRecoveredKeys measures one use of the store after 10,000 keys have recovered.
func BenchmarkStoreRecoveredKeys(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := New[int, string](10_000, time.Nanosecond)
		keep, since := true, clock.Now()
		s.KeepIf(func(string) (bool, int64) { since++; return keep, since })
		for key := range 10_000 {
			use(s, key)
		}
		s.Len()
		s.idleAfter, keep, since = time.Hour, false, clock.Now()
		for e := s.kept.next; e != &s.kept; e = e.next {
			e.idleSince -= int64(time.Hour)
		}
		b.StartTimer()
		if s.Len(); s.nkept != 0 {
			b.Fatalf("got %d kept, want 0", s.nkept)
		}
	}
}

// TestStorePlacesRecoveredKeyAfterPlacedOneIsUsed: the place that the store remembers may be gone.
func TestStorePlacesRecoveredKeyAfterPlacedOneIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[int, string](10, time.Minute)
		start := clock.Now()
		at := func(second int) { time.Sleep(time.Duration(start + int64(second)*int64(time.Second) - clock.Now())) }
		recovered := int64(0)
		s.KeepIf(func(value string) (bool, int64) { return value != "1" && recovered == 0, recovered })
		use(s, 2)
		at(2)
		use(s, 3)
		at(60)
		s.Len() // 2 must be kept
		at(62)
		s.Len() // and 3
		at(65)
		use(s, 1)
		at(70)
		recovered = clock.Now()
		at(120)
		s.Len() // places 2 after 1
		held := s.Acquire(2, name)
		at(122)
		s.Len() // places 3
		if s.nkept != 0 || !has(s, 1) || !has(s, 3) {
			t.Errorf("got %d kept, want 0 and all keys present", s.nkept)
		}
		at(130)
		if has(s, 1) || has(s, 3) || !has(s, 2) {
			t.Error("want only the key in use present")
		}
		s.Release(held)
	})
}
