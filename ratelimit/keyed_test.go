package ratelimit_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
)

func perKey(rate float64, burst, maxKeys int) *ratelimit.Keyed[int] {
	return ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{
		Config:  ratelimit.Config{Name: "customers", Rate: rate, Burst: burst},
		MaxKeys: maxKeys,
	})
}

// All ways to use a key share its bucket.
func TestKeyedHasOneBucketPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 3, 0)
		type customer struct{}
		one := resiliencetest.FailFirst[int](0).Returning(1)
		guarded := resilience.Compose(one.Do, k.By(func(ctx context.Context) int { return ctx.Value(customer{}).(int) }))
		for id := range 2 {
			ctx := context.WithValue(t.Context(), customer{}, id)
			if !k.Allow(id) {
				t.Errorf("key %d: Allow returned false", id)
			}
			if _, err := guarded(ctx); err != nil {
				t.Errorf("key %d: By: got %v", id, err)
			}
			if value, err := ratelimit.DoKey(ctx, k, id, one.Do); value != 1 || err != nil {
				t.Errorf("key %d: DoKey: got %v, %v, want 1", id, value, err)
			}
			if s := k.Snapshot(id); s != (ratelimit.Snapshot{Name: "customers", Rate: 1, Burst: 3}) {
				t.Errorf("key %d: got %+v, want an empty bucket", id, s)
			}
			_, byErr := guarded(ctx)
			_, doErr := ratelimit.DoKey(ctx, k, id, one.Do)
			for _, err := range []error{byErr, doErr} {
				if after, _ := resilience.RetryAfter(err); !errors.Is(err, ratelimit.ErrLimited) || after != time.Second || err.Error() != "ratelimit customers: rate exceeded, retry in 1s" {
					t.Errorf("key %d: got %v, want a refusal for 1s", id, err)
				}
			}
		}
		if s := k.Snapshot(7); s.Available != 3 || k.Len() != 2 || one.Calls() != 4 || k.Name() != "customers" {
			t.Errorf("got %+v, %d keys, and %d calls, want 3 tokens, 2 keys, and 4 calls", s, k.Len(), one.Calls())
		}
	})
}

// It is forgotten not a nanosecond earlier.
func TestKeyedForgetsKeyWhenBucketIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(0.5, 2, 0)
		k.Allow(1)
		k.Allow(1)
		time.Sleep(4*time.Second - 1)
		if s := k.Snapshot(1); k.Len() != 1 || s.Available != 1 {
			t.Errorf("got %d keys and %+v", k.Len(), s)
		}
		time.Sleep(time.Nanosecond)
		if s := k.Snapshot(1); k.Len() != 0 || s.Available != 2 {
			t.Errorf("got %d keys and %+v", k.Len(), s)
		}
	})
}

// The buckets fill in another order than that in which the keys are used.
func TestKeyedForgetsEachKeyWhenItsBucketIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{For: func(seconds int) ratelimit.Config {
			return ratelimit.Config{Rate: 1, Burst: seconds}
		}})
		for _, seconds := range []int{3, 1, 4, 2, 5} {
			k.AllowN(seconds, seconds)
		}
		for second := range 6 {
			if got, want := k.Len(), 5-second; got != want {
				t.Errorf("got %d keys after %ds, want %d", got, second, want)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestKeyedHoldsNothingOfForgottenKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type customer struct{ name string }
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[*customer]{Config: ratelimit.Config{Rate: 1}})
		alice := &customer{"alice"}
		held := weak.Make(alice)
		k.Allow(alice)
		time.Sleep(time.Second)
		if n := k.Len(); n != 0 {
			t.Errorf("got %d keys, want 0", n)
		}
		if runtime.GC(); held.Value() != nil {
			t.Error("the forgotten key is still in memory")
		}
		runtime.KeepAlive(k)
	})
}

// However many other keys are used, each key is admitted exactly like a limiter of its own.
func TestKeyedNeverForgetsUsedTokens(t *testing.T) {
	for _, maxKeys := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(maxKeys), 1))
			const rate, burst = 1, 5
			k := perKey(rate, burst, maxKeys)
			alone := map[int]*ratelimit.Limiter{}
			admitted, refused, forgotten := 0, 0, 0
			for range 20_000 {
				time.Sleep(time.Duration(random.Int64N(int64(time.Second / 8))))
				if random.IntN(1000) == 0 {
					time.Sleep(time.Minute)
				}
				id := random.IntN(1 + random.IntN(20))
				if alone[id] == nil {
					alone[id] = ratelimit.New(ratelimit.Config{Rate: rate, Burst: burst})
				}
				if got, want := k.Snapshot(id).Available, alone[id].Snapshot().Available; got != want {
					t.Fatalf("MaxKeys %d: key %d has %d tokens, want %d", maxKeys, id, got, want)
				}
				got, want := k.Allow(id), alone[id].Allow()
				if got != want {
					t.Fatalf("MaxKeys %d: key %d: got %v, want %v", maxKeys, id, got, want)
				}
				if got {
					admitted++
				} else {
					refused++
				}
				if k.Len() < len(alone) {
					forgotten++
				}
			}
			if admitted < 1000 || refused < 100 || forgotten < 1000 {
				t.Errorf("MaxKeys %d: got %d admitted, %d refused, and %d times with forgotten keys, want more", maxKeys, admitted, refused, forgotten)
			}
		})
	}
}

func TestKeyedKeepsKeyWhoseBucketIsNotFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 4, 10)
		for id := range 1000 {
			for k.Allow(id) {
			}
		}
		for id := range 1000 {
			if k.Allow(id) {
				t.Fatalf("key %d was forgotten and has a full bucket", id)
			}
		}
		if s := k.Snapshot(-1); k.Len() != 1000 || s.Available != 4 {
			t.Errorf("got %d keys and %d tokens for a new one, want 1000 and 4", k.Len(), s.Available)
		}
		time.Sleep(4 * time.Second)
		if k.Len() != 0 {
			t.Errorf("got %d keys after the time in which their buckets fill, want 0", k.Len())
		}
	})
}

// Beyond MaxKeys, full buckets are forgotten although they were used recently.
func TestKeyedMaxKeysForgetsFullBucketsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 100, 10)
		for range 50 {
			k.Allow(-1) // this key's bucket fills in 50 s
		}
		for id := range 1000 {
			k.Allow(id)
			time.Sleep(time.Second / 4) // up to 4 buckets lack a token at a time
		}
		if n := k.Len(); n > 10 {
			t.Errorf("got %d keys, want at most 10", n)
		}
		for id := range 1000 {
			k.Allow(-2 - id)
		}
		if s := k.Snapshot(0); s.Available != 100 {
			t.Errorf("got %+v, want a full bucket", s)
		}
	})
}

func TestKeyedMaxKeysKeepsEmptyBucketsAmongFullOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 100, 10)
		for k.Allow(-1) {
		}
		for id := range 90 * 4 {
			k.Allow(id)
			time.Sleep(time.Second / 4)
		}
		if s := k.Snapshot(-1); s.Available != 90 || k.Len() > 10 {
			t.Errorf("got %+v and %d keys after 90s, want 90 tokens and at most 10 keys", s, k.Len())
		}
	})
}

type plan int

// Each customer has the limit of its plan.
func TestKeyedForConfiguresEachKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[plan]int{}
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[plan]{
			Config: ratelimit.Config{Name: "plans", Rate: 1, Burst: 2},
			For: func(p plan) ratelimit.Config {
				asked[p]++
				switch p {
				case 1:
					return ratelimit.Config{Name: "gold", Rate: 10, Burst: 20}
				case 2:
					return ratelimit.Config{Rate: 0.5, Wait: time.Minute}
				}
				return ratelimit.Config{} // the default
			},
		})
		for p, want := range map[plan]ratelimit.Snapshot{
			0: {Name: "plans", Rate: 1, Burst: 2, Available: 2},
			1: {Name: "gold", Rate: 10, Burst: 20, Available: 20},
			2: {Name: "plans", Rate: 0.5, Burst: 1, Available: 1},
		} {
			if s := k.Snapshot(p); s != want {
				t.Errorf("plan %d: got %+v, want %+v", p, s, want)
			}
			for range want.Burst {
				if !k.Allow(p) {
					t.Errorf("plan %d: Allow refused a call within the burst", p)
				}
			}
			if k.Allow(p) || asked[p] != 2 {
				t.Errorf("plan %d: admitted beyond the burst, or For was called %d times, want 2", p, asked[p])
			}
		}
		began := time.Now()
		if err := k.Wait(t.Context(), 2); err != nil || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v, want a wait of 2s", err, time.Since(began))
		}
		if k.Len() != 1 { // 0 and 1 are full after 2 s, 2 is empty
			t.Errorf("got %d keys, want 1", k.Len())
		}
		time.Sleep(2 * time.Second)
		if k.Allow(2); asked[2] != 3 {
			t.Errorf("For was called %d times, want again for a forgotten key", asked[2])
		}
	})
}

// A key that is used more often than its bucket fills is remembered, also while its bucket is full.
func TestKeyedRemembersKeyInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{For: func(string) ratelimit.Config {
			asked++
			return ratelimit.Config{Rate: 1, Burst: 10}
		}})
		for range 100 {
			k.Allow("alice")
			time.Sleep(9 * time.Second)
		}
		if asked != 1 {
			t.Errorf("For was called %d times, want once", asked)
		}
	})
}

// Another call adds the key while For runs. Both use the same bucket.
func TestKeyedForRacingCallsShareOneBucket(t *testing.T) {
	var k *ratelimit.Keyed[string]
	asked := 0
	k = ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{For: func(key string) ratelimit.Config {
		if asked++; asked == 1 && !k.Allow(key) {
			t.Error("the inner call was refused")
		}
		return ratelimit.Config{Rate: 1e-5}
	}})
	if k.Allow("alice") || k.Len() != 1 || asked != 2 {
		t.Errorf("got a second token of one, or %d keys and %d calls of For, want 1 and 2", k.Len(), asked)
	}
}

// Another call adds the key while For runs for 8 s. The bucket fills in 10 s.
func TestKeyedForSlowCallCountsAsUseOfKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k *ratelimit.Keyed[string]
		asked := 0
		k = ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{For: func(key string) ratelimit.Config {
			if asked++; asked == 1 {
				k.Allow(key)
				time.Sleep(8 * time.Second)
			}
			return ratelimit.Config{Rate: 1, Burst: 10}
		}})
		k.Allow("alice")
		if time.Sleep(10*time.Second - 1); k.Len() != 1 {
			t.Errorf("got %d keys less than 10s after the use, want 1", k.Len())
		}
		if time.Sleep(time.Nanosecond); k.Len() != 0 {
			t.Errorf("got %d keys 10s after the use, want 0", k.Len())
		}
	})
}

// The customer's plan changes while its key is remembered.
func TestKeyedSnapshotOfForgottenKeyIsThatOfNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate := 1.0
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{For: func(string) ratelimit.Config {
			return ratelimit.Config{Rate: rate}
		}})
		k.Allow("alice")
		rate = 2
		if s := k.Snapshot("alice"); s.Rate != 1 {
			t.Errorf("got %+v of a remembered key, want rate 1", s)
		}
		time.Sleep(time.Second)
		if s := k.Snapshot("alice"); s.Rate != 2 {
			t.Errorf("got %+v of a forgotten key, want rate 2", s)
		}
	})
}

func TestKeyedForPanicsOnInvalidConfig(t *testing.T) {
	broken := true
	k := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{
		Config: ratelimit.Config{Name: "plans"},
		For: func(string) ratelimit.Config {
			if broken {
				return ratelimit.Config{}
			}
			return ratelimit.Config{Rate: 1}
		},
	})
	func() {
		defer func() {
			const want = "ratelimit plans: For(alice): ratelimit plans: Rate is 0, must be above 0 and at most 1000000"
			if value := recover(); value != want {
				t.Errorf("panic value is %v, want %s", value, want)
			}
		}()
		k.Allow("alice")
	}()
	if broken = false; k.Len() != 0 || !k.Allow("alice") {
		t.Errorf("got %d keys and a refusal after the repair", k.Len())
	}
}

func TestKeyedAllowNTakesTokensOfKey(t *testing.T) {
	k := perKey(1e-5, 10, 0)
	if !k.AllowN(1, 7) || k.AllowN(1, 4) || !k.AllowN(1, 3) || !k.AllowN(2, 10) || k.AllowN(2, 11) {
		t.Errorf("got %+v and %+v, want two empty buckets", k.Snapshot(1), k.Snapshot(2))
	}
}

func TestKeyedDefaultMaxKeys(t *testing.T) {
	k := perKey(1e-5, 2, 0)
	for id := range 20_000 {
		k.AllowN(id, 0) // the bucket stays full
	}
	if k.Len() != 10_000 {
		t.Errorf("got %d keys, want 10000", k.Len())
	}
}

// However many other keys come, a later call for the key queues behind its waiting calls.
func TestKeyedKeepsKeyWithWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{Config: ratelimit.Config{Rate: 1, Wait: time.Minute}, MaxKeys: 1})
		began := time.Now()
		var g errgroup.Group
		call := func() error {
			_, err := ratelimit.DoKey(t.Context(), k, 1, resiliencetest.FailFirst[int](0).Do)
			return err
		}
		for range 4 {
			g.Go(call)
		}
		synctest.Wait()
		for id := range 10 {
			k.Allow(10 + id)
		}
		g.Go(call)
		if err := g.Wait(); err != nil || time.Since(began) != 4*time.Second {
			t.Errorf("got %v after %v, want 4s", err, time.Since(began))
		}
	})
}

var globalKeyed = perKey(1, 3, 2)

// See TestLimiterClockGoingBackBlocksOneFill.
func TestKeyedSurvivesClockGoingBack(t *testing.T) {
	use := func() {
		for id := range 10 {
			for globalKeyed.Allow(id) {
			}
		}
	}
	use()
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			use()
			time.Sleep(3 * time.Second)
			for id := range 10 {
				if s := globalKeyed.Snapshot(id); s.Available != 3 {
					t.Errorf("key %d: got %d tokens after the time in which a bucket fills, want 3", id, s.Available)
				}
			}
			use()
		})
		use()
	}
}

// The test uses real threads, and more keys than MaxKeys.
func TestKeyedTokensAreTakenOnceUnderContention(t *testing.T) {
	const keys, burst = 20, 100
	roomy, tight := perKey(1e-5, burst, keys), perKey(1e-5, burst, keys/4)
	var admitted, more [keys]atomic.Int32
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 5000 {
				id := random.IntN(keys)
				if roomy.Allow(id) {
					admitted[id].Add(1)
				}
				if tight.Allow(id) {
					more[id].Add(1)
				}
				if random.IntN(10) == 0 {
					runtime.Gosched()
				}
			}
			return nil
		})
	}
	g.Wait()
	for id := range keys {
		if admitted[id].Load() != burst || more[id].Load() != burst {
			t.Errorf("key %d: got %d calls, and %d with a small MaxKeys, want %d", id, admitted[id].Load(), more[id].Load(), burst)
		}
	}
}

func TestKeyedConfigValidateReportsAllErrors(t *testing.T) {
	const want = "ratelimit customers: Rate is 0, must be above 0 and at most 1000000\nratelimit customers: MaxKeys is -1, must be positive, or 0 for 10000"
	bad := ratelimit.KeyedConfig[int]{Config: ratelimit.Config{Name: "customers"}, MaxKeys: -1}
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Error(err)
	}
	one := resiliencetest.FailFirst[int](0)
	for text, mistake := range map[string]func(){
		want: func() { ratelimit.NewKeyed(bad) },
		"ratelimit: By: key is nil, must be a function":                func() { perKey(1, 1, 0).By(nil) },
		"ratelimit: DoKey: fn is nil, must be a function":              func() { ratelimit.DoKey[int, int](t.Context(), perKey(1, 1, 0), 1, nil) },
		"ratelimit: DoKey: k is nil, must be a Keyed made by NewKeyed": func() { ratelimit.DoKey(t.Context(), nil, 1, one.Do) },
	} {
		func() {
			defer func() {
				if value := recover(); value != text {
					t.Errorf("panic value is %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := perKey(1, 1, 0)
	if _, err := ratelimit.DoKey(ctx, k, 1, one.Do); !errors.Is(err, context.Canceled) || k.Len() != 0 || one.Calls() != 0 {
		t.Errorf("ended context: got %v with %d keys, want context.Canceled with 0", err, k.Len())
	}
}

func TestKeyedAllowOfKnownKeyAllocatesNothing(t *testing.T) {
	k := perKey(1, 1e6, 0)
	if n := testing.AllocsPerRun(1000, func() { k.Allow(1) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkKeyed(b *testing.B) {
	b.Run("serial", func(b *testing.B) {
		k := perKey(1e6, 1e9, 0)
		for b.Loop() {
			k.Allow(1)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		k := perKey(1e6, 1e9, 0)
		b.RunParallel(func(pb *testing.PB) {
			for id := 0; pb.Next(); id++ {
				k.Allow(id % 100)
			}
		})
	})
	b.Run("new", func(b *testing.B) { // beyond MaxKeys
		k := perKey(1, 10, 10_000)
		b.ReportAllocs()
		for id := 0; b.Loop(); id++ {
			k.Allow(id)
		}
	})
	b.Run("memory", func(b *testing.B) {
		const keys = 100_000
		for b.Loop() {
			k := perKey(1, 10, keys)
			before := heap()
			for id := range keys {
				k.Allow(id)
			}
			b.ReportMetric(float64(heap()-before)/keys, "B/key")
			runtime.KeepAlive(k)
		}
	})
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Available is that of the key with the fewest tokens, or of a new key if none is remembered.
func TestKeyedReportSummarizesKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{
			Config: ratelimit.Config{Rate: 2, Burst: 3, Wait: time.Minute},
			For:    func(key int) ratelimit.Config { return ratelimit.Config{Rate: 1, Burst: key, Wait: time.Minute} },
		})
		expect := func(when string, rate, available, waiting float64) {
			t.Helper()
			v := k.Report().Values
			if v[0].Value != rate || v[1].Value != available || v[2].Value != waiting {
				t.Errorf("%s: got %+v, want rate %v, available %v, waiting %v", when, v, rate, available, waiting)
			}
		}
		expect("no keys", 2, 3, 0)
		k.Allow(10)
		expect("a key with 9 tokens", 2, 9, 0)
		k.Allow(8)
		k.Allow(20)
		expect("keys with 9, 7, and 19 tokens", 2, 7, 0)
		k.AllowN(1, 1)
		for range 2 {
			go k.Wait(t.Context(), 1)
		}
		synctest.Wait()
		expect("two waiting calls", 2, 0, 2)
		time.Sleep(time.Minute)
	})
}

func TestKeyedIsReadSafelyWhileKeysComeAndGo(t *testing.T) {
	k := perKey(1e6, 1, 10)
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for j := range 1000 {
				k.Allow(i*1000 + j)
				switch j % 10 {
				case 0:
					k.Report()
				case 3:
					k.Len()
				case 6:
					k.Snapshot(j)
				}
			}
			return nil
		})
	}
	g.Wait()
	if got := k.Report().Values[2].Value; got != 0 {
		t.Errorf("got %v waiting calls, want 0", got)
	}
}
