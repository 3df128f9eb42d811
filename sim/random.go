package sim

// A source is a splitmix64 generator (Steele, Lea, and Flood, Fast Splittable Pseudorandom Number
// Generators, OOPSLA 2014). Every call and every attempt has its own, so that what happens to one
// doesn't depend on what happened to others.
type source struct{ state uint64 }

const golden = 0x9e3779b97f4a7c15

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// sourceOf returns the source of an attempt, or, for attempt 0, of the call itself.
func sourceOf(seed uint64, call, attempt int) source {
	return source{mix(mix(mix(seed+golden)+uint64(call)*golden) + uint64(attempt)*golden)}
}

// float returns a number between 0 and 1, both excluded.
func (s *source) float() float64 {
	s.state += golden
	return (float64(mix(s.state)>>12) + 0.5) / (1 << 52)
}
