package prelude

import "context"

// Stand-ins for google.golang.org/grpc's packages, so that this module needn't require them.
type grpcCode int

var codes struct {
	NotFound, InvalidArgument, AlreadyExists, FailedPrecondition, PermissionDenied, Unauthenticated, Aborted grpcCode
}

var status struct{ Code func(err error) grpcCode }

type Message struct{ ID string }

var broker interface {
	Publish(ctx context.Context, payload []byte) error
}

var ErrTooLarge, ErrNotConnected error

func queryUser(ctx context.Context, id string) (User, error) { return User{ID: id}, ctx.Err() }
