package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // the name that Redis has for a script
	_ "embed"
	"encoding/hex"

	"github.com/redis/go-redis/v9"
)

// script is a program that Redis runs as one step. EVALSHA runs it by its digest, which a server knows from the source.
type script struct{ source, sha string }

func newScript(source string) *script {
	sum := sha1.Sum([]byte(source)) //nolint:gosec // see above
	return &script{source: source, sha: hex.EncodeToString(sum[:])}
}

var (
	//go:embed lua/reserve.lua
	reserveSource string
	//go:embed lua/settle.lua
	settleSource string
	//go:embed lua/take.lua
	takeSource string
	//go:embed lua/adjust.lua
	adjustSource string
	//go:embed lua/put.lua
	putSource string

	reserveScript = newScript(reserveSource)
	settleScript  = newScript(settleSource)
	takeScript    = newScript(takeSource)
	adjustScript  = newScript(adjustSource)
	putScript     = newScript(putSource)
)

// loadScripts has the server of a new connection know all scripts: it may have been started just now. Only a server
// whose scripts somebody flushes while it is in use has to be given their sources later (see lane.sendAgain), and one
// that does not let us load scripts. Connections to Sentinels, which have no scripts, come here as well.
func loadScripts(ctx context.Context, conn *redis.Conn) error {
	_, err := conn.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, s := range []*script{reserveScript, settleScript, takeScript, adjustScript, putScript} {
			pipe.ScriptLoad(ctx, s.source)
		}
		return nil
	})
	if isReply(err) {
		return nil
	}
	return err
}

// op is one command of a call.
type op struct {
	cmd redis.Cmder
	// script is the script that the command runs, or nil.
	script *script
}

// run returns an op that runs a script. The first two of args are for run; the number of keys and the keys follow.
func (s *script) run(args []any) op {
	args[0], args[1] = "evalsha", &s.sha
	return op{cmd: redis.NewCmd(noContext, args...), script: s}
}

// again returns the same command for another attempt. A script brings its source along.
func (o op) again() op {
	args := append([]any(nil), o.cmd.Args()...)
	if o.script != nil {
		args[0], args[1] = "eval", &o.script.source
	}
	next := op{script: o.script}
	switch o.cmd.(type) {
	case *redis.MapStringStringCmd:
		next.cmd = redis.NewMapStringStringCmd(noContext, args...)
	case *redis.SliceCmd:
		next.cmd = redis.NewSliceCmd(noContext, args...)
	case *redis.StringSliceCmd:
		next.cmd = redis.NewStringSliceCmd(noContext, args...)
	default:
		next.cmd = redis.NewCmd(noContext, args...)
	}
	return next
}
