package resiliencegrpc

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// options are the options of a call, by what happens to them.
type options struct {
	rest []grpc.CallOption // passed to every attempt

	// The caller's targets. They are filled once, from those of one attempt.
	headers  []*metadata.MD
	trailers []*metadata.MD
	peers    []*peer.Peer

	finish []func(error) // called once

	repeat, overrides bool // of the last AllowRepeat, and whether there is one
}

// newOptions returns the options of a call. It shares the slice if no option needs special treatment.
func newOptions(all []grpc.CallOption) (o options) {
	special := 0
	for _, option := range all {
		switch option := option.(type) {
		case grpc.HeaderCallOption:
			o.headers = append(o.headers, option.HeaderAddr)
		case grpc.TrailerCallOption:
			o.trailers = append(o.trailers, option.TrailerAddr)
		case grpc.PeerCallOption:
			o.peers = append(o.peers, option.PeerAddr)
		case grpc.OnFinishCallOption:
			o.finish = append(o.finish, option.OnFinish)
		case allowRepeat:
			o.repeat, o.overrides = option.repeatable, true
			continue
		default:
			continue
		}
		special++
	}
	o.rest = all
	if special > 0 {
		o.rest = slices.DeleteFunc(slices.Clone(all), func(option grpc.CallOption) bool {
			switch option.(type) {
			case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
				return true
			}
			return false
		})
	}
	return o
}

// targets receive the headers, the trailers, and the peer of one attempt.
type targets struct {
	header, trailer metadata.MD
	peer            peer.Peer
}

// unset is what a target holds until gRPC sets it, perhaps to nil.
var unset = metadata.MD{unsetKey: nil}

// unsetKey has a space, so it is no key of real metadata.
const unsetKey = "resiliencegrpc unset"

func isSet(md metadata.MD) bool {
	_, unset := md[unsetKey]
	return !unset
}

// forAttempt returns the options for an attempt: rest, and the options that fill the attempt's
// targets, which are nil if the caller has none.
func (o *options) forAttempt(rest []grpc.CallOption) ([]grpc.CallOption, *targets) {
	if len(o.headers)+len(o.trailers)+len(o.peers) == 0 {
		return rest, nil
	}
	t := &targets{header: unset, trailer: unset}
	rest = slices.Clip(rest)
	if len(o.headers) > 0 {
		rest = append(rest, grpc.Header(&t.header))
	}
	if len(o.trailers) > 0 {
		rest = append(rest, grpc.Trailer(&t.trailer))
	}
	if len(o.peers) > 0 {
		rest = append(rest, grpc.Peer(&t.peer))
	}
	return rest, t
}

// handOver copies an attempt's targets to the caller's. t may be nil.
func (o *options) handOver(t *targets) {
	if t == nil {
		return
	}
	fill(o.headers, t.header)
	fill(o.trailers, t.trailer)
	if t.peer != (peer.Peer{}) {
		for _, p := range o.peers {
			*p = t.peer
		}
	}
}

// fill sets the caller's targets to md if gRPC has set it. Each target gets its own map.
func fill(targets []*metadata.MD, md metadata.MD) {
	if !isSet(md) {
		return
	}
	for i, target := range targets {
		if i > 0 && md != nil {
			md = md.Copy()
		}
		*target = md
	}
}

// finished calls the caller's OnFinish functions.
func (o *options) finished(err error) {
	for _, finish := range o.finish {
		finish(err)
	}
}
