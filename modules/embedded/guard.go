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
// each request whole, and hands it on only if the broker can bear it. What it refuses ends the connection and is
// logged.
//
// A connection has one request in the broker at a time. The guard reads the next one when the answer is written, so it
// may answer by itself, and it knows what the requests in the broker cost.
type guard struct {
	log               *zap.Logger
	maxProduce        int64
	maxInFlight       int64
	defaultPartitions int
	limits            func(partitions int) map[string]string
	syncer            *syncer // nil: an acknowledgement does not wait for the disk

	requestTimeout time.Duration
	idleTimeout    time.Duration

	connections atomic.Int64
	inFlight    atomic.Int64 // what the requests in the broker cost, in bytes

	parsing   sync.Mutex // a small request may claim large arrays: one at a time
	newcomers *rate.Limiter

	mu       sync.Mutex
	known    map[string]struct{} // groups and producer IDs that the broker remembers
	topics   map[string]int      // partitions of each topic that there is or was since the start
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

	// Any other request names topics, partitions and groups: a Fetch takes 28 bytes for each partition.
	maxRequest = 256 * configs.KiB
	// The broker keeps what a member of a group sends for as long as the member lives.
	maxMembership = 64 * configs.KiB
	// A name stays in the broker's memory.
	maxName = 255
	// Kafka's offset.metadata.max.bytes.
	maxOffsetMetadata = 4 * configs.KiB

	// Parsed, a request of many small elements takes up to this many times its bytes. Batches are not parsed.
	expansion = 32
	// minInFlight is what the requests in the broker may cost together.
	minInFlight = 256 * configs.MiB

	// Answers of all connections together, as far as batches are not larger.
	maxAnswers = 128 * configs.MiB
	maxAnswer  = 16 * configs.MiB

	maxFetchWait     = 30 * time.Second
	maxRebalanceWait = 5 * time.Minute

	// A request that has begun must arrive, and an answer must be taken, within requestTimeout.
	requestTimeout = 30 * time.Second
	// Kafka's connections.max.idle.ms.
	idleTimeout = 10 * time.Minute

	// clientPartitions is how many partitions clients may create. Each takes memory, and a synced file at every stop.
	clientPartitions = 200

	// The broker never forgets a producer or group. So many new ones, members included, may come at
	// once, and then one a second.
	newcomersAtOnce = 1000

	logEvery = 10 * time.Second
)

// served are the requests that clients may send: what producers, consumers and their tools need. The broker has more,
// among them transactions and the change of configuration; those are neither offered nor let through. No version here
// has tagged fields, whose number may be a lie of four bytes that keeps a parser busy for a minute. ApiVersions has
// them, but the guard answers it without reading it.
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

// newGuard returns a guard for messages of a size. Topics that clients create have so many partitions if they leave it
// open, and these limits whatever they ask for.
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

// Accept returns an error only when the listener is closed: the broker would not listen any more after any other.
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

// admit accepts a connection. It returns nil when it has refused one.
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

// report logs what was refused, and holds its tongue for logEvery after that.
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

// guarded is a connection as the broker sees it. The broker reads in one goroutine and writes, one call an answer, in
// another.
type guarded struct {
	net.Conn
	guard *guard

	frame    []byte // what the broker has yet to read of a request
	waiting  bool   // for the answer to it
	produces int16  // version of the Produce that is in the broker, or -1
	cost     atomic.Int64
	answered chan struct{}

	closing sync.Once
	closed  chan struct{}
}

// guarding is the guard in the log lines about its panics. The broker calls it in goroutines of its own.
const guarding = "the guard of the embedded broker"

// Read hands requests on to the broker. Any error has closed the connection, and so has a panic.
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

// Write sends the broker's answer to the request that is in the broker. What it acknowledges is on the disk before.
// After a panic the client has no answer, and the connection ends: it sends again what may not be on the disk.
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

// keep returns the answer to be sent in the place of one, if that is about batches: what it acknowledges is on the disk
// by then, and what was not written is not taken for a copy later.
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

// disownUnwritten changes the answers about batches that the broker could not write, as on a full disk, and reports
// whether there are any. The broker has noted their numbers before it tried, so that it would take the same batch
// for a copy when it is sent again, and acknowledge what it does not have. The answer given instead makes a
// producer take other numbers.
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

// Close may be called any number of times.
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

// next waits until the request before it is answered, and takes the next one in. A client that leaves while its request
// is in the broker keeps its place until then.
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

// spend says what the broker has to hold for the connection's request from now on.
func (c *guarded) spend(cost int64) {
	c.guard.inFlight.Add(cost - c.cost.Swap(cost))
}

// receive reads a request, with its size in front. It takes memory for what has arrived, not for what is announced.
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
	headerSize       = 2 + 2 + correlationBytes // key and version come first
	firstChunk       = 64 << 10
)

func keyOf(frame []byte) (kmsg.Key, int16) {
	header := frame[sizeBytes:]
	return kmsg.Key(int16(binary.BigEndian.Uint16(header))), int16(binary.BigEndian.Uint16(header[2:]))
}

// tooLarge says what a size most likely is.
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

// unanswered tells whether a request that passed gets no answer: a Produce that asks for none.
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

// judge returns the guard's own answer to a request, or the request as the broker may have it, or why it is refused.
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

// encode puts the size in front of a header and the body that follows it.
func encode(header []byte, body interface{ AppendTo(dst []byte) []byte }) []byte {
	frame := body.AppendTo(append(make([]byte, sizeBytes, 256), header...))
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-sizeBytes))
	return frame
}

// apiVersions offers what is served. Who asks in a version that is not known is told the versions of this request
// alone, in the oldest one, as by Kafka.
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

// checkProduce looks at every batch without parsing it. What is only wrong, the broker answers.
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

// Positions in a record batch.
const (
	batchProducerID = 43
	batchRecords    = 57
	batchHeader     = 61
)

// checkBatch keeps away batches that take the offset back, and producers beyond number.
func (g *guard) checkBatch(batch []byte) error {
	if len(batch) < batchHeader {
		return nil // the broker answers that it is corrupt
	}
	if records := int32(binary.BigEndian.Uint32(batch[batchRecords:])); records <= 0 {
		return fmt.Errorf("a batch of %d records", records)
	}
	if id := batch[batchProducerID : batchProducerID+8]; id[0]&0x80 == 0 { // it is not -1
		return g.admit("producer " + string(id))
	}
	return nil
}

var errNewcomers = errors.New("too many new producers, groups and members of groups")

// admit lets in what the broker remembers for good, if it is known or not one too many.
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

// check returns an answer if the request is answered here, and an error if it is refused. It changes what is too much.
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

// checkMember keeps away members without a protocol, or with one that they name twice: the broker panics when it counts
// them.
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

// limitFetch bounds how much an answer holds and how long it may take. It makes every Fetch one without a session, as
// Kafka does when its sessions are used up: the broker's sessions have no end.
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

// answerTimes answers a look-up of offsets by time: such an index is not kept here. The broker would decompress batches
// for it, to any size, and trust what is within.
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

// checkTopics refuses topics with a name that is none, or with too many partitions, and gives the others the limits
// that all topics have.
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

// exists tells the guard of a topic that there is at the start.
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
