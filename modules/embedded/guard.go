package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/opencapture/capture/configs"
	"github.com/opencapture/capture/modules/panics"
)

// guard stands between the port and the broker, which was written for tests and trusts its clients. The guard reads
// each request whole, and hands it on only if the broker can bear it. A request that the guard refuses ends its
// connection and is logged.
//
// A connection has one request in the broker at a time. The guard reads the next request when the answer is written. So
// the guard may answer by itself, and it knows the cost of the requests in the broker.
type guard struct {
	log               *zap.Logger
	maxProduce        int64
	maxInFlight       int64
	defaultPartitions int
	limits            func(partitions int) map[string]string
	syncer            *syncer // nil: acknowledgements do not wait for the disk

	requestTimeout time.Duration
	idleTimeout    time.Duration

	connections atomic.Int64
	inFlight    atomic.Int64 // cost of the requests in the broker, in bytes

	parsing   sync.Mutex // one request at a time: a small one may claim large arrays
	newcomers *rate.Limiter

	mu       sync.Mutex
	known    map[string]struct{} // groups and producer IDs that the broker remembers
	topics   map[string]int      // partitions of each topic since the start, deleted ones too
	room     int                 // partitions that clients may still create
	logged   time.Time
	unlogged int
}

const (
	// A consumer has two or three connections.
	maxConnections = 500

	// A produce request holds a batch of one large message or many small batches, and little else.
	smallestMaxProduce = 16 * configs.MiB
	produceOverhead    = configs.MiB
	maxBatches         = 10_000

	// Other requests name topics, partitions and groups: a Fetch takes 28 bytes for each partition.
	maxRequest = 256 * configs.KiB
	// The broker keeps the bytes that a member of a group sends for as long as the member lives.
	maxMembership = 64 * configs.KiB
	// A name stays in the broker's memory.
	maxName = 255
	// This is Kafka's offset.metadata.max.bytes.
	maxOffsetMetadata = 4 * configs.KiB

	// A request of many small elements takes up to this many times its bytes when it is parsed. Batches are not parsed.
	expansion = 32
	// minInFlight is the least limit on the cost of all requests in the broker together.
	minInFlight = 256 * configs.MiB

	// These limit the answers to Fetch: of all connections together, and of one. A larger batch still comes whole.
	maxAnswers = 128 * configs.MiB
	maxAnswer  = 16 * configs.MiB

	maxFetchWait     = 30 * time.Second
	maxRebalanceWait = 5 * time.Minute

	// A request that has begun must arrive, and a client must take an answer, within requestTimeout.
	requestTimeout = 30 * time.Second
	// This is Kafka's connections.max.idle.ms.
	idleTimeout = 10 * time.Minute

	// clientPartitions is how many partitions clients may create. Each takes memory, and a synced file at every stop.
	clientPartitions = 200

	// The broker never forgets a producer or group. This many new producers, groups and members of groups may come at
	// once, and then one a second.
	newcomersAtOnce = 1000

	logEvery = 10 * time.Second
)

// served holds the requests that clients may send: those that producers, consumers and their tools need. The broker has
// more, among them transactions and the change of configuration; the guard neither offers nor passes these. No version
// here has tagged fields: their number may be a lie of four bytes that keeps a parser busy for a minute. ApiVersions
// has tagged fields, but the guard answers it without reading them.
var served = map[kmsg.Key]struct{ min, max int16 }{
	kmsg.Produce:              {3, 8},
	kmsg.Fetch:                {4, 11},
	kmsg.ListOffsets:          {1, 5},
	kmsg.Metadata:             {0, 8},
	kmsg.OffsetCommit:         {0, 7},
	kmsg.OffsetFetch:          {0, 5},
	kmsg.FindCoordinator:      {0, 2},
	kmsg.JoinGroup:            {0, 5},
	kmsg.Heartbeat:            {0, 3},
	kmsg.LeaveGroup:           {0, 3},
	kmsg.SyncGroup:            {0, 3},
	kmsg.DescribeGroups:       {0, 4},
	kmsg.ListGroups:           {0, 2},
	kmsg.ApiVersions:          {0, 3},
	kmsg.CreateTopics:         {0, 4},
	kmsg.DeleteTopics:         {0, 3},
	kmsg.DeleteRecords:        {0, 1},
	kmsg.InitProducerID:       {0, 1},
	kmsg.OffsetForLeaderEpoch: {3, 3},
	kmsg.DescribeConfigs:      {0, 3},
}

var validTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// newGuard returns a guard for messages of at most that size. A topic that a client creates has partitions partitions
// if the client leaves the number open. It has these limits, whatever the client asks for.
func newGuard(
	log *zap.Logger, maxMessage configs.ByteSize, partitions int, limits func(partitions int) map[string]string,
) *guard {
	maxProduce := max(maxMessage, smallestMaxProduce) + produceOverhead
	return &guard{
		log: log, maxProduce: int64(maxProduce), maxInFlight: int64(max(4*maxProduce, minInFlight)),
		defaultPartitions: partitions, limits: limits,
		requestTimeout: requestTimeout, idleTimeout: idleTimeout,
		newcomers: rate.NewLimiter(1, newcomersAtOnce),
		known:     map[string]struct{}{}, topics: map[string]int{}, room: clientPartitions,
	}
}

// listener is a listener whose connections are guarded. Its first connection is the broker's own, from within.
type listener struct {
	net.Listener
	guard  *guard
	inside chan net.Conn
}

// listen guards a listener. The connection that it returns leads around the guard.
func (g *guard) listen(l net.Listener) (net.Listener, net.Conn) {
	client, server := net.Pipe()
	inside := make(chan net.Conn, 1)
	inside <- server
	return &listener{l, g, inside}, client
}

// Accept returns an error only when the listener is closed. After any other error the broker would stop listening.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.inside:
		return conn, nil
	default:
	}
	for {
		var conn net.Conn
		err := panics.Try(l.guard.log, guarding, func() (err error) {
			conn, err = l.admit()
			return err
		})
		switch {
		case conn != nil || errors.Is(err, net.ErrClosed):
			return conn, err
		case err != nil:
			l.guard.report("", fmt.Errorf("accept: %w", err))
			time.Sleep(100 * time.Millisecond) // too many open files, most likely
		}
	}
}

// admit accepts a connection. It returns nil for a connection that it has refused.
func (l *listener) admit() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.guard.connections.Add(1) > maxConnections {
		l.guard.connections.Add(-1)
		l.guard.report(conn.RemoteAddr().String(), fmt.Errorf("more than %d connections", maxConnections))
		conn.Close() //nolint:errcheck,gosec // nothing was written
		return nil, nil
	}
	return &guarded{
		Conn: conn, guard: l.guard,
		answered: make(chan struct{}, 1), closed: make(chan struct{}),
	}, nil
}

// report logs a refusal, and then logs none for logEvery.
func (g *guard) report(remote string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if time.Since(g.logged) < logEvery {
		g.unlogged++
		return
	}
	g.log.Warn("the embedded broker's port refused a client",
		zap.String("client", remote), zap.Error(err), zap.Int("unlogged_before", g.unlogged))
	g.logged, g.unlogged = time.Now(), 0
}

// guarded is a connection as the broker sees it. The broker reads in one goroutine, and writes in another with one call
// for each answer.
type guarded struct {
	net.Conn
	guard *guard

	frame    []byte // the part of a request that the broker has yet to read
	waiting  bool   // for the answer to that request
	produces int16  // version of the Produce that is in the broker, or -1
	cost     atomic.Int64
	answered chan struct{}

	closing sync.Once
	closed  chan struct{}
}

// guarding is the guard's name in the log lines about its panics. The broker calls the guard in goroutines of its own.
const guarding = "the guard of the embedded broker"

// Read hands requests on to the broker. An error or a panic closes the connection before Read returns.
func (c *guarded) Read(p []byte) (int, error) {
	for len(c.frame) == 0 {
		if err := panics.Try(c.guard.log, guarding, c.next); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				c.guard.report(c.RemoteAddr().String(), err)
			}
			c.spend(0)
			return 0, errors.Join(err, c.Close())
		}
	}
	n := copy(p, c.frame)
	if c.frame = c.frame[n:]; len(c.frame) == 0 {
		c.frame = nil // the broker has its own copy
	}
	return n, nil
}

// Write sends the client the broker's answer to its request. The disk has every batch that the answer acknowledges.
// After a panic the client gets no answer, and the connection ends. The client then sends again the batches that the
// disk may lack.
func (c *guarded) Write(answer []byte) (n int, err error) {
	err = panics.Try(c.guard.log, guarding, func() error {
		kept, err := c.keep(answer)
		if err == nil {
			err = c.write(kept)
		}
		return err
	})
	var panicked *panics.Error
	if errors.As(err, &panicked) {
		_ = c.Close()
	}
	if err == nil {
		n = len(answer)
	}
	select {
	case c.answered <- struct{}{}:
	default:
	}
	return n, err
}

// keep returns the answer that the client gets in the place of the broker's answer. If the answer is about batches, the
// disk has the acknowledged ones by then, and a batch that was not written will not be taken for a copy later.
func (c *guarded) keep(answer []byte) ([]byte, error) {
	if c.produces < 0 {
		return answer, nil
	}
	const head = sizeBytes + correlationBytes
	response := kmsg.NewPtrProduceResponse()
	response.Version = c.produces
	if err := response.ReadFrom(answer[head:]); err != nil {
		return nil, err
	}
	if disownUnwritten(response) {
		answer = response.AppendTo(answer[:head:head])
		binary.BigEndian.PutUint32(answer, uint32(len(answer)-sizeBytes))
	}
	if c.guard.syncer == nil {
		return answer, nil
	}
	return answer, c.guard.syncer.keep(response)
}

// disownUnwritten changes the answers about batches that the broker could not write, for instance to a full disk, and
// reports whether there are any. The broker has noted the numbers of such a batch before it tried to write it. So it
// would take the same batch for a copy when it comes again, and acknowledge a batch that it does not have. The changed
// answer makes a producer take other numbers.
func disownUnwritten(response *kmsg.ProduceResponse) (changed bool) {
	for i := range response.Topics {
		for j := range response.Topics[i].Partitions {
			if partition := &response.Topics[i].Partitions[j]; partition.ErrorCode == kerr.UnknownServerError.Code {
				partition.ErrorCode = kerr.InvalidProducerEpoch.Code
				changed = true
			}
		}
	}
	return changed
}

func (c *guarded) write(answer []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(c.guard.requestTimeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(answer)
	return err
}

// Close may be called any number of times. Calls after the first return net.ErrClosed.
func (c *guarded) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		c.guard.connections.Add(-1)
		c.spend(0)
		close(c.closed)
		err = c.Conn.Close()
	})
	return err
}

// next waits until the request before is answered, and takes the next one in. A client that leaves while its request is
// in the broker keeps its place until the answer.
func (c *guarded) next() error {
	if c.waiting {
		late := time.NewTimer(c.guard.idleTimeout)
		defer late.Stop()
		select {
		case <-c.answered:
			c.waiting = false
		case <-c.closed:
			return net.ErrClosed
		case <-late.C:
			return errors.New("the broker did not answer a request")
		}
	}
	c.spend(0)
	frame, err := c.receive()
	if err != nil {
		return err
	}
	answer, frame, err := c.guard.judge(frame)
	if err != nil {
		return err
	}
	if answer != nil {
		err := c.write(answer)
		return err
	}
	c.produces = -1
	if key, version := keyOf(frame); key == kmsg.Produce {
		c.produces = version
	}
	c.waiting = !unanswered(frame)
	c.frame = frame
	return nil
}

// spend sets what the broker has to hold for the connection's request from now on, in bytes.
func (c *guarded) spend(cost int64) {
	c.guard.inFlight.Add(cost - c.cost.Swap(cost))
}

// receive reads a request, with its size in front. It takes memory for the bytes that have arrived, not for those that
// are announced.
func (c *guarded) receive() ([]byte, error) {
	var head [sizeBytes]byte
	if err := c.SetReadDeadline(time.Now().Add(c.guard.idleTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.Conn, head[:1]); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) {
			err = io.EOF // an idle connection ends quietly, and so does one that is reset
		}
		return nil, err
	}
	if err := c.SetReadDeadline(time.Now().Add(c.guard.requestTimeout)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(c.Conn, head[1:]); err != nil {
		return nil, fmt.Errorf("the size of a request: %w", err)
	}
	size := int64(binary.BigEndian.Uint32(head[:]))
	if size > c.guard.maxProduce {
		return nil, tooLarge(head, c.guard.maxProduce)
	}
	if size < headerSize {
		return nil, fmt.Errorf("a request of %d bytes is none of Kafka's", size)
	}
	frame := append(make([]byte, 0, sizeBytes+min(size, firstChunk)), head[:]...)[:sizeBytes+headerSize]
	if _, err := io.ReadFull(c.Conn, frame[sizeBytes:]); err != nil {
		return nil, fmt.Errorf("the header of a request: %w", err)
	}
	key, version := keyOf(frame)
	versions, known := served[key]
	factor := int64(1)
	switch {
	case !known:
		return nil, fmt.Errorf("request %d is not served here", key)
	case key != kmsg.ApiVersions && (version < versions.min || version > versions.max):
		return nil, fmt.Errorf("%s version %d is not served here, only %d to %d",
			key.Name(), version, versions.min, versions.max)
	case key != kmsg.Produce && size > int64(maxRequest):
		return nil, fmt.Errorf("%s of %d bytes: at most %s", key.Name(), size, maxRequest)
	case key != kmsg.Produce:
		factor = expansion
	}
	for missing := size - headerSize; ; {
		have := int64(len(frame))
		c.spend(have * factor)
		if c.guard.inFlight.Load() > c.guard.maxInFlight {
			return nil, fmt.Errorf("requests of all clients together take more than %s",
				configs.ByteSize(c.guard.maxInFlight))
		}
		if missing == 0 {
			return frame, nil
		}
		more := min(missing, max(have, firstChunk))
		frame = append(frame, make([]byte, more)...)
		if _, err := io.ReadFull(c.Conn, frame[have:]); err != nil {
			return nil, fmt.Errorf("%s: %d bytes announced, fewer arrived: %w", key.Name(), size, err)
		}
		missing -= more
	}
}

const (
	sizeBytes        = 4
	correlationBytes = 4
	headerSize       = 2 + 2 + correlationBytes // key, version, correlation ID
	firstChunk       = 64 << 10
)

func keyOf(frame []byte) (kmsg.Key, int16) {
	header := frame[sizeBytes:]
	return kmsg.Key(int16(binary.BigEndian.Uint16(header))), int16(binary.BigEndian.Uint16(header[2:]))
}

// tooLarge returns an error that says what a size most likely is.
func tooLarge(head [4]byte, limit int64) error {
	switch string(head[:]) {
	case "GET ", "HEAD", "POST", "PUT ", "PATC", "DELE", "OPTI", "CONN", "TRAC", "PRI ":
		return errors.New("an HTTP request: this is the Kafka port; HTTP is served at transport.listen")
	}
	if head[0] == 0x16 && head[1] == 0x03 {
		return errors.New("a TLS handshake: the embedded broker does not speak TLS")
	}
	return fmt.Errorf("a request of %d bytes, at most %d are taken: kafka.max_message_bytes",
		binary.BigEndian.Uint32(head[:]), limit)
}

// unanswered reports whether a request that passed gets no answer. A Produce may ask for none.
func unanswered(frame []byte) bool {
	if key, _ := keyOf(frame); key != kmsg.Produce {
		return false
	}
	reader := kbin.Reader{Src: frame[sizeBytes+headerSize:]}
	skipString(&reader) // client ID
	skipString(&reader) // transactional ID
	return reader.Int16() == 0
}

func skipString(reader *kbin.Reader) {
	if length := reader.Int16(); length > 0 {
		reader.Span(int(length))
	}
}

// judge returns one of three things: the guard's own answer to a request, the request as the broker may have it, or why
// the request is refused.
func (g *guard) judge(frame []byte) (answer, passed []byte, err error) {
	key, version := keyOf(frame)
	correlation := frame[sizeBytes+headerSize-correlationBytes : sizeBytes+headerSize]
	if key == kmsg.ApiVersions {
		return encode(correlation, apiVersions(version)), nil, nil
	}
	reader := kbin.Reader{Src: frame[sizeBytes+headerSize:]}
	skipString(&reader)
	if !reader.Ok() {
		return nil, nil, fmt.Errorf("%s: its header is cut off", key.Name())
	}
	header, body := frame[sizeBytes:len(frame)-len(reader.Src)], reader.Src
	if key == kmsg.Produce {
		if err := g.checkProduce(body); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", key.Name(), err)
		}
		return nil, frame, nil
	}

	g.parsing.Lock()
	defer g.parsing.Unlock()
	parsed, err := parse(key, version, body)
	if err != nil {
		return nil, nil, fmt.Errorf("%s version %d: %w", key.Name(), version, err)
	}
	response, err := g.check(parsed, len(body))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", key.Name(), err)
	case response != nil:
		return encode(correlation, response), nil, nil
	default:
		return nil, encode(header, parsed), nil
	}
}

// parse reads a request that has no tagged fields.
func parse(key kmsg.Key, version int16, body []byte) (request kmsg.Request, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read: %v", r)
		}
	}()
	request = key.Request()
	request.SetVersion(version)
	return request, request.ReadFrom(body)
}

// encode returns the size, the header and the body of a frame.
func encode(header []byte, body interface{ AppendTo(dst []byte) []byte }) []byte {
	frame := body.AppendTo(append(make([]byte, sizeBytes, 256), header...))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-sizeBytes))
	return frame
}

// apiVersions offers the served requests. A client that asks in a version that is not known learns only the versions of
// ApiVersions, in the oldest format, as from Kafka.
func apiVersions(version int16) kmsg.Response {
	response := kmsg.NewPtrApiVersionsResponse()
	known := version >= served[kmsg.ApiVersions].min && version <= served[kmsg.ApiVersions].max
	if known {
		response.Version = version
	} else {
		response.ErrorCode = kerr.UnsupportedVersion.Code
	}
	for key, versions := range served {
		if known || key == kmsg.ApiVersions {
			offer := kmsg.ApiVersionsResponseApiKey{
				ApiKey: key.Int16(), MinVersion: versions.min, MaxVersion: versions.max,
			}
			response.ApiKeys = append(response.ApiKeys, offer)
		}
	}
	return response
}

// checkProduce looks at every batch without parsing it. It leaves requests that are merely wrong to the broker's
// answer.
func (g *guard) checkProduce(body []byte) error {
	if g.syncer != nil {
		if err := g.syncer.err(); err != nil {
			return err
		}
	}
	reader := kbin.Reader{Src: body}
	skipString(&reader) // transactional ID
	reader.Int16()      // acks
	reader.Int32()      // timeout
	elements := 0
	for range reader.ArrayLen() {
		skipString(&reader) // topic
		elements++
		for range reader.ArrayLen() {
			reader.Int32() // partition
			if err := g.checkBatch(reader.NullableBytes()); err != nil {
				return err
			}
			if elements++; elements > maxBatches || !reader.Ok() {
				break
			}
		}
		if elements > maxBatches {
			return fmt.Errorf("more than %d topics and batches", maxBatches)
		}
		if !reader.Ok() {
			break
		}
	}
	if !reader.Ok() || len(reader.Src) > 0 {
		return errors.New("cannot be read")
	}
	return nil
}

// These are positions in a record batch.
const (
	batchProducerID = 43
	batchRecords    = 57
	batchHeader     = 61
)

// checkBatch refuses batches that would take the offset back, and producers beyond the limit of newcomers.
func (g *guard) checkBatch(batch []byte) error {
	if len(batch) < batchHeader {
		return nil // the broker answers that the batch is corrupt
	}
	if records := int32(binary.BigEndian.Uint32(batch[batchRecords:])); records <= 0 {
		return fmt.Errorf("a batch of %d records", records)
	}
	if id := batch[batchProducerID : batchProducerID+8]; id[0]&0x80 == 0 { // the id is not -1
		return g.admit("producer " + string(id))
	}
	return nil
}

var errNewcomers = errors.New("too many new producers, groups and members of groups")

// admit lets in a name that the broker will remember for good, if it is known already or within the limit of newcomers.
func (g *guard) admit(name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, known := g.known[name]; known {
		return nil
	}
	if !g.newcomers.Allow() {
		return errNewcomers
	}
	g.known[name] = struct{}{}
	return nil
}

func (g *guard) admitGroup(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("the name of a group of %d bytes: at most %d", len(name), maxName)
	}
	return g.admit("group " + name)
}

// check returns an answer if the guard answers the request itself, and an error if it refuses the request. It lowers
// demands of the request that are too high.
func (g *guard) check(request kmsg.Request, size int) (kmsg.Response, error) {
	switch r := request.(type) {
	case *kmsg.FetchRequest:
		g.limitFetch(r)
	case *kmsg.ListOffsetsRequest:
		return answerTimes(r), nil
	case *kmsg.CreateTopicsRequest:
		return g.checkTopics(r), nil
	case *kmsg.InitProducerIDRequest:
		if r.TransactionalID != nil {
			response := r.ResponseKind().(*kmsg.InitProducerIDResponse)
			response.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
			return response, nil
		}
		if !g.newcomers.Allow() {
			return nil, errNewcomers
		}
	case *kmsg.OffsetCommitRequest:
		for _, topic := range r.Topics {
			for _, partition := range topic.Partitions {
				if partition.Metadata != nil && len(*partition.Metadata) > int(maxOffsetMetadata) {
					return nil, fmt.Errorf("metadata of %d bytes: at most %s",
						len(*partition.Metadata), maxOffsetMetadata)
				}
			}
		}
		return nil, g.admitGroup(r.Group)
	case *kmsg.JoinGroupRequest:
		r.RebalanceTimeoutMillis = min(r.RebalanceTimeoutMillis, int32(maxRebalanceWait.Milliseconds()))
		return nil, g.checkMember(r, size)
	case *kmsg.SyncGroupRequest:
		if size > int(maxMembership) {
			return nil, fmt.Errorf("%d bytes: at most %s", size, maxMembership)
		}
	}
	return nil, nil //nolint:nilnil // it passes
}

// checkMember refuses members without a protocol, and members that name one twice: the broker panics when it counts the
// protocols.
func (g *guard) checkMember(r *kmsg.JoinGroupRequest, size int) error {
	if size > int(maxMembership) {
		return fmt.Errorf("%d bytes: at most %s", size, maxMembership)
	}
	named := map[string]bool{}
	for _, protocol := range r.Protocols {
		if named[protocol.Name] {
			return fmt.Errorf("the protocol %.32q twice", protocol.Name)
		}
		named[protocol.Name] = true
	}
	if len(named) == 0 {
		return errors.New("no protocol")
	}
	if r.MemberID == "" && !g.newcomers.Allow() {
		return errNewcomers
	}
	return g.admitGroup(r.Group)
}

// limitFetch bounds the size of an answer and the time that it may take. It makes every Fetch one without a session, as
// Kafka does when its sessions are used up, because the broker's sessions never end.
func (g *guard) limitFetch(r *kmsg.FetchRequest) {
	largest := min(int64(maxAnswer), int64(maxAnswers)/max(g.connections.Load(), 1))
	r.MaxBytes = min(r.MaxBytes, int32(largest))
	r.MaxWaitMillis = min(r.MaxWaitMillis, int32(maxFetchWait.Milliseconds()))
	r.SessionID, r.SessionEpoch, r.ForgottenTopics = 0, -1, nil
	for i := range r.Topics {
		for j := range r.Topics[i].Partitions {
			partition := &r.Topics[i].Partitions[j]
			partition.PartitionMaxBytes = min(partition.PartitionMaxBytes, r.MaxBytes)
		}
	}
}

// answerTimes answers a look-up of offsets by time, because the broker keeps no such index. It would decompress batches
// for the look-up, to any size, and trust what is in them.
func answerTimes(r *kmsg.ListOffsetsRequest) kmsg.Response {
	byTime := false
	response := r.ResponseKind().(*kmsg.ListOffsetsResponse)
	for _, topic := range r.Topics {
		answer := kmsg.ListOffsetsResponseTopic{Topic: topic.Topic}
		for _, partition := range topic.Partitions {
			byTime = byTime || partition.Timestamp >= 0
			of := kmsg.NewListOffsetsResponseTopicPartition()
			of.Partition, of.ErrorCode = partition.Partition, kerr.UnsupportedForMessageFormat.Code
			answer.Partitions = append(answer.Partitions, of)
		}
		response.Topics = append(response.Topics, answer)
	}
	if !byTime {
		return nil
	}
	return response
}

// checkTopics refuses topics with an invalid name or with too many partitions. It gives the others the limits that all
// topics have.
func (g *guard) checkTopics(r *kmsg.CreateTopicsRequest) kmsg.Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	created := map[string]int{}
	room := g.room
	for i := range r.Topics {
		topic := &r.Topics[i]
		if !validTopic.MatchString(topic.Topic) || topic.Topic == "." || topic.Topic == ".." {
			return refuseTopics(r, kerr.InvalidTopicException,
				"a topic's name is 1 to 249 letters, digits, dots, underscores or hyphens")
		}
		partitions := max(int(topic.NumPartitions), len(topic.ReplicaAssignment))
		if partitions <= 0 {
			partitions = g.defaultPartitions
		}
		room -= max(partitions-g.topics[topic.Topic], 0)
		created[topic.Topic] = max(partitions, g.topics[topic.Topic])
		topic.Configs = nil
		for key, value := range g.limits(partitions) {
			topic.Configs = append(topic.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: key, Value: &value})
		}
	}
	if room < 0 {
		return refuseTopics(r, kerr.InvalidPartitions, fmt.Sprintf("clients may create %d more partitions in the "+
			"embedded broker (%d in all; deleted ones count until the next start)", g.room, clientPartitions))
	}
	if !r.ValidateOnly {
		g.room = room
		maps.Copy(g.topics, created)
	}
	return nil
}

// exists tells the guard about a topic that exists at the start.
func (g *guard) exists(topic string, partitions int, ours bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.topics[topic] = partitions
	if !ours {
		g.room -= partitions
	}
}

func refuseTopics(r *kmsg.CreateTopicsRequest, reason *kerr.Error, message string) kmsg.Response {
	response := r.ResponseKind().(*kmsg.CreateTopicsResponse)
	for _, topic := range r.Topics {
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic, answer.ErrorCode, answer.ErrorMessage = topic.Topic, reason.Code, &message
		response.Topics = append(response.Topics, answer)
	}
	return response
}
