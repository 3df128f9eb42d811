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

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
)

func perKey(rate float64, burst, maxKeys int) *ratelimit.Keyed[int] {
	return ratelimit.NewKeyed[int](ratelimit.KeyedConfig{
		Config:  ratelimit.Config{Name: "customers", Rate: rate, Burst: burst},
		MaxKeys: maxKeys,
	})
}

// TestKeyedHasOneBucketPerKey, asked for by each of the ways.
func TestKeyedHasOneBucketPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 3, 0)
		type customer struct{}
		one := resiliencetest.FailFirst[int](0).Returning(1)
		guarded := resilience.Compose(one.Do, k.By(func(ctx context.Context) int { return ctx.Value(customer{}).(int) }))
		for id := range 2 {
			ctx := context.WithValue(t.Context(), customer{}, id)
			if !k.Allow(id) {
				t.Errorf("%d: Allow says no", id)
			}
			if _, err := guarded(ctx); err != nil {
				t.Errorf("%d: By: %v", id, err)
			}
			if value, err := ratelimit.DoKey(ctx, k, id, one.Do); value != 1 || err != nil {
				t.Errorf("%d: DoKey: %v", id, err)
			}
			if s := k.Snapshot(id); s != (ratelimit.Snapshot{Name: "customers", Rate: 1, Burst: 3}) {
				t.Errorf("%d: %+v", id, s)
			}
			_, byErr := guarded(ctx)
			_, doErr := ratelimit.DoKey(ctx, k, id, one.Do)
			for _, err := range []error{byErr, doErr} {
				if after, _ := resilience.RetryAfter(err); !errors.Is(err, ratelimit.ErrLimited) || after != time.Second || err.Error() != "ratelimit customers: limited, retry in 1s" {
					t.Errorf("%d: %v", id, err)
				}
			}
		}
		if s := k.Snapshot(7); s.Available != 3 || k.Len() != 2 || one.Calls() != 4 || k.Name() != "customers" {
			t.Errorf("%+v, %d keys, %d calls", s, k.Len(), one.Calls())
		}
	})
}

// TestKeyedForgetsKeyWhenBucketIsFull, not a nanosecond before: forgetting a full one changes nothing.
func TestKeyedForgetsKeyWhenBucketIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(0.5, 2, 0)
		k.Allow(1)
		k.Allow(1)
		time.Sleep(4*time.Second - 1)
		if s := k.Snapshot(1); k.Len() != 1 || s.Available != 1 {
			t.Errorf("%d keys, %+v", k.Len(), s)
		}
		time.Sleep(time.Nanosecond)
		if s := k.Snapshot(1); k.Len() != 0 || s.Available != 2 {
			t.Errorf("%d keys, %+v", k.Len(), s)
		}
	})
}

// TestKeyedEvictionGainsNoTokens: whatever the keys that are used beside, one that is forgotten and comes again has at most the tokens that it
// would have had.
func TestKeyedEvictionGainsNoTokens(t *testing.T) {
	for _, maxKeys := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(maxKeys), 1))
			const rate, burst = 1, 5
			k := perKey(rate, burst, maxKeys)
			alone := map[int]*ratelimit.Limiter{}
			admitted, gone := 0, 0
			for range 20_000 {
				time.Sleep(time.Duration(random.Int64N(int64(time.Second / 8))))
				if random.IntN(1000) == 0 {
					time.Sleep(time.Minute)
				}
				id := random.IntN(1 + random.IntN(20))
				if alone[id] == nil {
					alone[id] = ratelimit.New(ratelimit.Config{Rate: rate, Burst: burst})
				}
				if most, s := alone[id].Snapshot().Available, k.Snapshot(id); s.Available > most {
					t.Fatalf("MaxKeys %d: key %d has %d tokens, %d if it had been remembered", maxKeys, id, s.Available, most)
				} else if s.Available < most {
					gone++
				}
				if k.Allow(id) {
					admitted++
					alone[id].Allow()
				}
				if k.Len() > maxKeys {
					t.Fatalf("%d keys", k.Len())
				}
			}
			if admitted < 1000 || gone < 100 {
				t.Errorf("MaxKeys %d: %d admitted, %d times with less: this shows nothing", maxKeys, admitted, gone)
			}
		})
	}
}

// TestKeyedAdmitsNewKeysDespiteManyOthers: what evicted ones lacked is forgotten when their buckets would have been full.
func TestKeyedAdmitsNewKeysDespiteManyOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := perKey(1, 4, 10)
		for id := range 1000 {
			for k.Allow(id) {
			}
		}
		if s := k.Snapshot(-1); s.Available != 0 {
			t.Errorf("a new key has %d tokens", s.Available)
		}
		for want := range 5 {
			if s := k.Snapshot(-1); s.Available != want {
				t.Errorf("a new key has %d tokens after %ds", s.Available, want)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestKeyedDefaultMaxKeys(t *testing.T) {
	k := perKey(1e-5, 2, 0)
	for id := range 10_001 {
		k.Allow(id)
	}
	if k.Len() != 10_000 {
		t.Errorf("%d keys", k.Len())
	}
}

// TestKeyedKeepsKeyWithWaitingCalls, however many others come: who comes later for it stands behind them.
func TestKeyedKeepsKeyWithWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ratelimit.NewKeyed[int](ratelimit.KeyedConfig{Config: ratelimit.Config{Rate: 1, Wait: time.Minute}, MaxKeys: 1})
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
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

var globalKeyed = perKey(1, 3, 2)

// TestKeyedSurvivesClockGoingBack: see TestLimiterClockGoingBackBlocksOneFill.
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
					t.Errorf("%d: %d tokens after the time in which a bucket fills", id, s.Available)
				}
			}
			use()
		})
		use()
	}
}

// TestKeyedTokensAreTakenOnceUnderContention, on real threads, with evictions.
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
		if admitted[id].Load() != burst || more[id].Load() > burst {
			t.Errorf("%d: %d calls, and %d where keys fall away, of %d tokens", id, admitted[id].Load(), more[id].Load(), burst)
		}
	}
}

func TestKeyedConfigValidateReportsAllErrors(t *testing.T) {
	const want = "ratelimit customers: Rate is 0, must be above 0 and at most 1000000\nratelimit customers: MaxKeys is -1, must be positive, or 0 for 10000"
	bad := ratelimit.KeyedConfig{Config: ratelimit.Config{Name: "customers"}, MaxKeys: -1}
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Error(err)
	}
	one := resiliencetest.FailFirst[int](0)
	for text, mistake := range map[string]func(){
		want: func() { ratelimit.NewKeyed[int](bad) },
		"ratelimit: By: key is nil, must be a function":                func() { perKey(1, 1, 0).By(nil) },
		"ratelimit: DoKey: fn is nil, must be a function":              func() { ratelimit.DoKey[int, int](t.Context(), perKey(1, 1, 0), 1, nil) },
		"ratelimit: DoKey: k is nil, must be a Keyed made by NewKeyed": func() { ratelimit.DoKey(t.Context(), nil, 1, one.Do) },
	} {
		func() {
			defer func() {
				if value := recover(); value != text {
					t.Errorf("panicked with %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := perKey(1, 1, 0)
	if _, err := ratelimit.DoKey(ctx, k, 1, one.Do); !errors.Is(err, context.Canceled) || k.Len() != 0 || one.Calls() != 0 {
		t.Errorf("%v for a ctx that is done, and %d keys", err, k.Len())
	}
}

func TestKeyedAllowOfKnownKeyAllocatesNothing(t *testing.T) {
	k := perKey(1, 1e6, 0)
	if n := testing.AllocsPerRun(1000, func() { k.Allow(1) }); n != 0 {
		t.Errorf("%v allocations", n)
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
	b.Run("new", func(b *testing.B) { // and another falls away
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
