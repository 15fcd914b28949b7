// Command sarama runs the scenarios with IBM's sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"thalweg.test/languages/sample"
)

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.MaxMessageBytes = 8_000_000
	config.Producer.Return.Successes = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
	config.Consumer.Return.Errors = false
	return config
}

func connect(c sample.Call) sarama.Client {
	client, err := sarama.NewClient([]string{c.Bootstrap}, config())
	sample.Must(err)
	return client
}

// code is the protocol's number of an error; 0 for none.
func code(err error) any {
	var known sarama.KError
	if err != nil && !errors.As(err, &known) {
		panic(err)
	}
	return int16(known)
}

// send sends the messages in order; what it returns says for each its offset, or the error code.
func send(c sample.Call, config *sarama.Config, messages []*sarama.ProducerMessage) []any {
	producer, err := sarama.NewAsyncProducer([]string{c.Bootstrap}, config)
	sample.Must(err)
	answers := make([]any, len(messages))
	go func() {
		for at, message := range messages {
			message.Metadata = at
			producer.Input() <- message
		}
	}()
	for range messages {
		select {
		case sent := <-producer.Successes():
			answers[sent.Metadata.(int)] = sent.Offset
		case failed := <-producer.Errors():
			answers[failed.Msg.Metadata.(int)] = code(failed.Err)
		}
	}
	sample.Must(producer.Close())
	return answers
}

func bytesOrNil(content []byte) sarama.Encoder {
	if content == nil {
		return nil
	}
	return sarama.ByteEncoder(content)
}

func samples(topic string, count, partitions int, c sample.Call) []*sarama.ProducerMessage {
	var messages []*sarama.ProducerMessage
	for n := range count {
		var headers []sarama.RecordHeader
		for _, header := range sample.Headers(n) {
			headers = append(headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Partition: int32(n % partitions), Key: bytesOrNil(sample.Key(n)), Value: bytesOrNil(sample.Value(n)),
			Headers: headers, Timestamp: time.UnixMilli(c.EpochMs + 10*int64(n)),
		})
	}
	return messages
}

func numbered(topic, letter string, first, count, partitions int) []*sarama.ProducerMessage {
	var messages []*sarama.ProducerMessage
	for n := first; n < first+count; n++ {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Partition: int32(n % partitions), Value: sarama.StringEncoder(fmt.Sprintf("%s%d", letter, n)),
		})
	}
	return messages
}

func readAll(c sample.Call, topic string, config *sarama.Config) [][]any {
	client := connect(c)
	partitions, err := client.Partitions(topic)
	sample.Must(err)
	consumer, err := sarama.NewConsumer([]string{c.Bootstrap}, config)
	sample.Must(err)
	var seen [][]any
	for _, partition := range partitions {
		end, err := client.GetOffset(topic, partition, sarama.OffsetNewest)
		sample.Must(err)
		reader, err := consumer.ConsumePartition(topic, partition, 0)
		sample.Must(err)
		deadline := time.After(30 * time.Second)
		for count := int64(0); count < end; count++ {
			select {
			case m := <-reader.Messages():
				var headers []sample.Header
				for _, header := range m.Headers {
					headers = append(headers, sample.Header{Name: string(header.Key), Value: header.Value})
				}
				seen = append(seen, sample.Seen(m.Partition, m.Offset, m.Timestamp.UnixMilli(), m.Key, m.Value, headers))
			case <-deadline:
				panic(fmt.Sprintf("%s-%d: %d of %d came", topic, partition, count, end))
			}
		}
		sample.Must(reader.Close())
	}
	sample.Must(consumer.Close())
	return sample.Sort(seen)
}

func admin(c sample.Call) map[string]any {
	client := connect(c)
	administrator, err := sarama.NewClusterAdminFromClient(client)
	sample.Must(err)
	topic := c.Prefix + "-admin"
	create := func(name, retention string) any {
		detail := &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 1, ConfigEntries: map[string]*string{"retention.ms": &retention}}
		return code(administrator.CreateTopic(name, detail, false))
	}
	partitions := func() any {
		described, err := administrator.DescribeTopics([]string{topic})
		sample.Must(err)
		return len(described[0].Partitions)
	}
	listed := func() any {
		topics, err := administrator.ListTopics()
		sample.Must(err)
		_, there := topics[topic]
		return there
	}
	retention := func() any {
		entries, err := administrator.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
		sample.Must(err)
		return entries[0].Value
	}
	alter := func(content string) any {
		err := administrator.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &content}, false)
		// Older versions keep the broker's words only.
		if known := sarama.ErrNoError; err != nil && !errors.As(err, &known) {
			return err.Error()
		}
		return code(err)
	}
	saw := map[string]any{"created": create(topic, "1234567"), "again": create(topic, "1"), "bad name": create("no spaces", "1")}
	saw["bad config"] = create(topic+"-bad", "soon")
	saw["partitions"] = sample.Until(3, partitions)
	saw["retention"] = retention()
	sample.Must(administrator.CreatePartitions(topic, 5, nil, false))
	saw["grown"] = sample.Until(5, partitions)
	saw["shrunk"] = code(administrator.CreatePartitions(topic, 2, nil, false))
	alter("7654321")
	saw["altered"] = sample.Until("7654321", retention)
	saw["badly altered"] = alter("soon")
	saw["listed"] = sample.Until(true, listed)
	brokers, _, err := administrator.DescribeCluster()
	sample.Must(err)
	saw["brokers"] = len(brokers)
	controller, err := client.Controller()
	sample.Must(err)
	metadata, err := controller.GetMetadata(sarama.NewMetadataRequest(sarama.MaxVersion, nil))
	sample.Must(err)
	saw["cluster id"] = len(*metadata.ClusterID)
	sample.Must(administrator.DeleteTopic(topic))
	saw["listed after deletion"] = sample.Until(false, listed)
	saw["deleted again"] = code(administrator.DeleteTopic(topic))
	return saw
}

func codecsScenario(c sample.Call) map[string]any {
	read := map[string]any{}
	for _, codec := range c.Codecs {
		topic := c.Prefix + "-codecs-" + codec
		with := config()
		with.Producer.Compression = codecs[codec]
		with.Producer.Flush.Frequency = 5 * time.Millisecond
		send(c, with, samples(topic, 300, 3, c))
		read[codec] = readAll(c, topic, config())
	}
	return map[string]any{"read": read}
}

func idempotence(c sample.Call) map[string]any {
	with := config()
	with.Producer.Idempotent = true
	with.Net.MaxOpenRequests = 1
	with.Producer.Flush.MaxMessages = 10
	answers := send(c, with, numbered(c.Prefix+"-idempotence", "v", 0, 3_000, 3))
	placed := [3][]any{}
	for n, answer := range answers {
		placed[n%3] = append(placed[n%3], answer)
	}
	return map[string]any{"placed": placed}
}

// values is what the members of a group have read.
type values struct {
	sync.Mutex
	seen map[string]bool
}

func (v *values) count() int {
	v.Lock()
	defer v.Unlock()
	return len(v.seen)
}

// member is one consumer of a group, in a goroutine of its own.
type member struct {
	group    sarama.ConsumerGroup
	lock     sync.Mutex
	owned    []int32
	consumed func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage)
	leave    context.CancelFunc
	left     chan struct{}
}

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.owned = nil
	for _, partitions := range session.Claims() {
		m.owned = append(m.owned, partitions...)
	}
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.owned = nil
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.consumed(session, message)
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) partitions() []int32 {
	m.lock.Lock()
	defer m.lock.Unlock()
	return append([]int32(nil), m.owned...)
}

func join(c sample.Call, topic string, consumed func(sarama.ConsumerGroupSession, *sarama.ConsumerMessage)) *member {
	group, err := sarama.NewConsumerGroup([]string{c.Bootstrap}, topic, config())
	sample.Must(err)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{group: group, consumed: consumed, leave: cancel, left: make(chan struct{})}
	go func() {
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{topic}, m); err != nil && ctx.Err() == nil {
				panic(err)
			}
		}
		sample.Must(group.Close())
		close(m.left)
	}()
	return m
}

func (m *member) close() {
	m.leave()
	<-m.left
}

func rebalance(c sample.Call) map[string]any {
	topic := c.Prefix + "-rebalance"
	var members []*member
	steps, read := [][]int{}, &values{seen: map[string]bool{}}
	consumed := func(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage) {
		session.MarkMessage(message, "")
		read.Lock()
		defer read.Unlock()
		read.seen[string(message.Value)] = true
	}
	settle := func() []int {
		deadline := time.Now().Add(60 * time.Second)
		for {
			owners, sizes, total := map[int32]bool{}, []int{}, 0
			for _, m := range members {
				owned := m.partitions()
				sizes, total = append(sizes, len(owned)), total+len(owned)
				for _, partition := range owned {
					owners[partition] = true
				}
			}
			sort.Ints(sizes)
			if total == 6 && len(owners) == 6 && sizes[0] > 0 {
				return sizes
			}
			sample.Deadline(deadline, fmt.Sprint("not settled: ", sizes))
			time.Sleep(20 * time.Millisecond)
		}
	}
	step := func() {
		before := 120 * len(steps)
		steps = append(steps, settle())
		send(c, config(), numbered(topic, "r", before, 120, 6))
		deadline := time.Now().Add(60 * time.Second)
		for read.count() < before+120 {
			sample.Deadline(deadline, fmt.Sprintf("%d of %d came", read.count(), before+120))
			time.Sleep(20 * time.Millisecond)
		}
	}
	for range 3 {
		members = append(members, join(c, topic, consumed))
		step()
	}
	for range 2 {
		members[0].close()
		members = members[1:]
		step()
	}
	members[0].close()
	return map[string]any{"steps": steps, "seen": read.count()}
}

func seekByTime(c sample.Call) map[string]any {
	topic := c.Prefix + "-seek-by-time"
	messages := numbered(topic, "t", 0, 600, 1)
	for n, message := range messages {
		message.Timestamp = time.UnixMilli(c.EpochMs + 10*int64(n/3))
	}
	send(c, config(), messages)
	client := connect(c)
	at := func(asked int64) int64 {
		offset, err := client.GetOffset(topic, 0, asked)
		sample.Must(err)
		return offset
	}
	offsets := []any{}
	for _, asked := range c.AskedTimes() {
		if offset := at(asked); offset >= 0 {
			offsets = append(offsets, offset)
		} else {
			offsets = append(offsets, nil)
		}
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	sample.Must(err)
	reader, err := consumer.ConsumePartition(topic, 0, at(c.AskedTimes()[4]))
	sample.Must(err)
	first := string((<-reader.Messages()).Value)
	return map[string]any{"offsets": offsets, "first": first, "ends": []int64{at(sarama.OffsetOldest), at(sarama.OffsetNewest)}}
}

func commitResume(c sample.Call) map[string]any {
	topic := c.Prefix + "-commit-resume"
	send(c, config(), numbered(topic, "c", 0, 300, 1))
	administrator, err := sarama.NewClusterAdmin([]string{c.Bootstrap}, config())
	sample.Must(err)
	committed := func() *sarama.OffsetFetchResponseBlock {
		found, err := administrator.ListConsumerGroupOffsets(topic, map[string][]int32{topic: {0}})
		sample.Must(err)
		return found.GetBlock(topic, 0)
	}
	// run reads until a number of records has come, commits behind the last of them, and leaves the group.
	run := func(count int, metadata string) []int64 {
		var offsets []int64
		done := make(chan struct{})
		m := join(c, topic, func(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage) {
			if len(offsets) == count {
				return
			}
			offsets = append(offsets, message.Offset)
			if len(offsets) == count {
				session.MarkOffset(topic, 0, message.Offset+1, metadata)
				session.Commit()
				close(done)
			}
		})
		select {
		case <-done:
		case <-time.After(60 * time.Second):
			panic("too late")
		}
		m.close()
		return offsets
	}
	run(100, "one hundred")
	found := committed()
	rest := run(200, "")
	return map[string]any{
		"committed": found.Offset, "metadata": found.Metadata, "resumed at": rest[0], "read": len(rest),
		"committed at the end": committed().Offset,
	}
}

func largeMessages(c sample.Call) map[string]any {
	topic := c.Prefix + "-large-messages"
	for _, codec := range []string{"none", "gzip"} {
		with := config()
		with.Producer.Compression = codecs[codec]
		for n := range 2 {
			send(c, with, []*sarama.ProducerMessage{{
				Topic: topic, Key: sarama.StringEncoder("large"), Value: sarama.ByteEncoder(sample.Noise(n, 3_000_000)),
				Timestamp: time.UnixMilli(c.EpochMs + int64(n)),
			}})
		}
	}
	with := config()
	with.Consumer.Fetch.Default = 100_000
	records := readAll(c, topic, with)
	refused := send(c, config(), []*sarama.ProducerMessage{{Topic: topic + "-small", Value: sarama.ByteEncoder(sample.Noise(2, 200_000))}})
	return map[string]any{"records": records, "refused": refused[0]}
}

func headers(c sample.Call) map[string]any {
	topic := c.Prefix + "-headers"
	send(c, config(), samples(topic, 100, 1, c))
	reference := map[string]any{}
	for _, codec := range c.Codecs {
		reference[codec] = readAll(c, "reference-"+codec, config())
	}
	return map[string]any{"own": readAll(c, topic, config()), "reference": reference}
}

func tombstones(c sample.Call) map[string]any {
	topic := c.Prefix + "-tombstones"
	values := [][]byte{nil, {}, []byte("x")}
	var messages []*sarama.ProducerMessage
	for n := range 30 {
		messages = append(messages, &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(fmt.Sprintf("k%d", n)), Value: bytesOrNil(values[n%3]),
			Timestamp: time.UnixMilli(c.EpochMs + int64(n)),
		})
	}
	send(c, config(), messages)
	refused := send(c, config(), []*sarama.ProducerMessage{{Topic: topic, Value: sarama.StringEncoder("x")}})
	return map[string]any{"records": readAll(c, topic, config()), "refused": refused[0]}
}

func main() {
	sample.Main(map[string]func(sample.Call) map[string]any{
		"admin": admin, "codecs": codecsScenario, "idempotence": idempotence, "rebalance": rebalance, "seek-by-time": seekByTime,
		"commit-resume": commitResume, "large-messages": largeMessages, "headers": headers, "tombstones": tombstones,
	})
}
