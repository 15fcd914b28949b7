// Command franz runs the scenarios with franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"thalweg.test/languages/sample"
)

var ctx = context.Background()

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func connect(c sample.Call, options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(8_000_000),
	}, options...)...)
	sample.Must(err)
	return client
}

// code is the protocol's number of an error; 0 for none.
func code(err error) any {
	var known *kerr.Error
	if err != nil && !errors.As(err, &known) {
		panic(err)
	}
	if err == nil {
		return int16(0)
	}
	return known.Code
}

// send sends the records in order; what it returns says for each its offset, or the error code.
func send(client *kgo.Client, records []*kgo.Record) []any {
	answers := make([]any, len(records))
	for at, record := range records {
		client.Produce(ctx, record, func(sent *kgo.Record, err error) {
			if answers[at] = code(err); err == nil {
				answers[at] = sent.Offset
			}
		})
	}
	sample.Must(client.Flush(ctx))
	return answers
}

func samples(topic string, count, partitions int, c sample.Call) []*kgo.Record {
	var records []*kgo.Record
	for n := range count {
		var headers []kgo.RecordHeader
		for _, header := range sample.Headers(n) {
			headers = append(headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		records = append(records, &kgo.Record{
			Topic: topic, Partition: int32(n % partitions), Key: sample.Key(n), Value: sample.Value(n), Headers: headers,
			Timestamp: time.UnixMilli(c.EpochMs + 10*int64(n)),
		})
	}
	return records
}

func numbered(topic, letter string, first, count, partitions int) []*kgo.Record {
	var records []*kgo.Record
	for n := first; n < first+count; n++ {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(n % partitions), Value: fmt.Appendf(nil, "%s%d", letter, n)})
	}
	return records
}

func receive(client *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	deadline := time.Now().Add(30 * time.Second)
	for len(records) < count {
		sample.Deadline(deadline, fmt.Sprintf("%d of %d came", len(records), count))
		short, cancel := context.WithTimeout(ctx, time.Second)
		fetches := client.PollRecords(short, count-len(records))
		cancel()
		fetches.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				panic(err)
			}
		})
		records = append(records, fetches.Records()...)
	}
	return records
}

func ends(c sample.Call, topic string) (starts, ends map[int32]int64) {
	client := connect(c)
	defer client.Close()
	starts, ends = map[int32]int64{}, map[int32]int64{}
	first, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	sample.Must(err)
	first.Each(func(at kadm.ListedOffset) { starts[at.Partition] = at.Offset })
	last, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	sample.Must(err)
	last.Each(func(at kadm.ListedOffset) { ends[at.Partition] = at.Offset })
	return starts, ends
}

func readAll(c sample.Call, topic string, options ...kgo.Opt) [][]any {
	_, last := ends(c, topic)
	total, from := 0, map[int32]kgo.Offset{}
	for partition, end := range last {
		total += int(end)
		from[partition] = kgo.NewOffset().At(0)
	}
	client := connect(c, append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
	defer client.Close()
	var seen [][]any
	for _, r := range receive(client, total) {
		var headers []sample.Header
		for _, header := range r.Headers {
			headers = append(headers, sample.Header{Name: header.Key, Value: header.Value})
		}
		seen = append(seen, sample.Seen(r.Partition, r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value, headers))
	}
	return sample.Sort(seen)
}

func admin(c sample.Call) map[string]any {
	raw := connect(c)
	client := kadm.NewClient(raw)
	topic := c.Prefix + "-admin"
	create := func(name, retention string) any {
		answer, err := client.CreateTopics(ctx, 3, 1, map[string]*string{"retention.ms": &retention}, name)
		sample.Must(err)
		return code(answer[name].Err)
	}
	partitions := func() any {
		topics, err := client.ListTopics(ctx, topic)
		sample.Must(err)
		return len(topics[topic].Partitions)
	}
	listed := func() any {
		topics, err := client.ListTopics(ctx)
		sample.Must(err)
		return topics.Has(topic)
	}
	retention := func() any {
		described, err := client.DescribeTopicConfigs(ctx, topic)
		sample.Must(err)
		for _, config := range described[0].Configs {
			if config.Key == "retention.ms" {
				return *config.Value
			}
		}
		return nil
	}
	alter := func(content string) any {
		answer, err := client.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &content}}, topic)
		sample.Must(err)
		return code(answer[0].Err)
	}
	saw := map[string]any{"created": create(topic, "1234567"), "again": create(topic, "1"), "bad name": create("no spaces", "1")}
	saw["bad config"] = create(topic+"-bad", "soon")
	saw["partitions"] = sample.Until(3, partitions)
	saw["retention"] = retention()
	_, err := client.CreatePartitions(ctx, 2, topic)
	sample.Must(err)
	saw["grown"] = sample.Until(5, partitions)
	shrunk, err := client.UpdatePartitions(ctx, 2, topic)
	sample.Must(err)
	saw["shrunk"] = code(shrunk[topic].Err)
	alter("7654321")
	saw["altered"] = sample.Until("7654321", retention)
	saw["badly altered"] = alter("soon")
	saw["listed"] = sample.Until(true, listed)
	cluster, err := client.BrokerMetadata(ctx)
	sample.Must(err)
	saw["brokers"] = len(cluster.Brokers)
	saw["cluster id"] = len(cluster.Cluster)
	_, err = client.DeleteTopics(ctx, topic)
	sample.Must(err)
	saw["listed after deletion"] = sample.Until(false, listed)
	again, err := client.DeleteTopics(ctx, topic)
	sample.Must(err)
	saw["deleted again"] = code(again[topic].Err)
	return saw
}

func codecsScenario(c sample.Call) map[string]any {
	read := map[string]any{}
	for _, codec := range c.Codecs {
		topic := c.Prefix + "-codecs-" + codec
		client := connect(c, kgo.ProducerBatchCompression(codecs[codec]))
		send(client, samples(topic, 300, 3, c))
		client.Close()
		read[codec] = readAll(c, topic)
	}
	return map[string]any{"read": read}
}

func idempotence(c sample.Call) map[string]any {
	client := connect(c, kgo.ProducerBatchMaxBytes(1_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	answers := send(client, numbered(c.Prefix+"-idempotence", "v", 0, 3_000, 3))
	placed := [3][]any{}
	for n, answer := range answers {
		placed[n%3] = append(placed[n%3], answer)
	}
	return map[string]any{"placed": placed}
}

// member is one consumer of a group and what it owns.
type member struct {
	client *kgo.Client
	owned  chan map[int32]bool
}

func join(c sample.Call, topic string) *member {
	m := &member{owned: make(chan map[int32]bool, 1)}
	m.owned <- map[int32]bool{}
	change := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			owned := <-m.owned
			for _, partition := range partitions[topic] {
				if has {
					owned[partition] = true
				} else {
					delete(owned, partition)
				}
			}
			m.owned <- owned
		}
	}
	m.client = connect(c,
		kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(200*time.Millisecond), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
	)
	return m
}

func (m *member) partitions() []int32 {
	owned := <-m.owned
	defer func() { m.owned <- owned }()
	var list []int32
	for partition := range owned {
		list = append(list, partition)
	}
	return list
}

func rebalance(c sample.Call) map[string]any {
	topic := c.Prefix + "-rebalance"
	sender := connect(c)
	var members []*member
	steps, values := [][]int{}, map[string]bool{}
	settle := func() []int {
		deadline := time.Now().Add(60 * time.Second)
		for {
			owners, sizes, total := map[int32]bool{}, []int{}, 0
			for _, m := range members {
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				m.client.PollFetches(short).EachRecord(func(r *kgo.Record) { values[string(r.Value)] = true })
				cancel()
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
		}
	}
	step := func() {
		before := 120 * len(steps)
		steps = append(steps, settle())
		send(sender, numbered(topic, "r", before, 120, 6))
		deadline := time.Now().Add(60 * time.Second)
		for len(values) < before+120 {
			sample.Deadline(deadline, fmt.Sprintf("%d of %d came", len(values), before+120))
			settle()
		}
	}
	for range 3 {
		members = append(members, join(c, topic))
		step()
	}
	for range 2 {
		members[0].client.Close()
		members = members[1:]
		step()
	}
	members[0].client.Close()
	return map[string]any{"steps": steps, "seen": len(values)}
}

func seekByTime(c sample.Call) map[string]any {
	topic := c.Prefix + "-seek-by-time"
	records := numbered(topic, "t", 0, 600, 1)
	for n, record := range records {
		record.Timestamp = time.UnixMilli(c.EpochMs + 10*int64(n/3))
	}
	raw := connect(c)
	send(raw, records)
	offsets := []any{}
	for _, asked := range c.AskedTimes() {
		listed, err := kadm.NewClient(raw).ListOffsetsAfterMilli(ctx, asked, topic)
		sample.Must(err)
		at, _ := listed.Lookup(topic, 0)
		sample.Must(at.Err)
		// Where no record is that late, the client puts the end, without a time.
		if at.Timestamp < 0 {
			offsets = append(offsets, nil)
		} else {
			offsets = append(offsets, at.Offset)
		}
	}
	from := map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AfterMilli(c.AskedTimes()[4])}}
	client := connect(c, kgo.ConsumePartitions(from))
	first := string(receive(client, 1)[0].Value)
	begin, end := ends(c, topic)
	return map[string]any{"offsets": offsets, "first": first, "ends": []int64{begin[0], end[0]}}
}

func commitResume(c sample.Call) map[string]any {
	topic := c.Prefix + "-commit-resume"
	raw := connect(c)
	send(raw, numbered(topic, "c", 0, 300, 1))
	committed := func() kadm.Offset {
		found, err := kadm.NewClient(raw).FetchOffsets(ctx, topic)
		sample.Must(err)
		at, _ := found.Lookup(topic, 0)
		sample.Must(at.Err)
		return at.Offset
	}
	one := join(c, topic).client
	annotated := kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		metadata := "one hundred"
		request.Topics[0].Partitions[0].Metadata = &metadata
		return nil
	})
	sample.Must(one.CommitRecords(annotated, receive(one, 100)...))
	one.Close()
	found := committed()
	two := join(c, topic).client
	rest := receive(two, 200)
	sample.Must(two.CommitRecords(ctx, rest...))
	two.Close()
	return map[string]any{
		"committed": found.At, "metadata": found.Metadata, "resumed at": rest[0].Offset, "read": len(rest),
		"committed at the end": committed().At,
	}
}

func largeMessages(c sample.Call) map[string]any {
	topic := c.Prefix + "-large-messages"
	for _, codec := range []string{"none", "gzip"} {
		client := connect(c, kgo.ProducerBatchCompression(codecs[codec]))
		for n := range 2 {
			send(client, []*kgo.Record{{
				Topic: topic, Key: []byte("large"), Value: sample.Noise(n, 3_000_000), Timestamp: time.UnixMilli(c.EpochMs + int64(n)),
			}})
		}
	}
	records := readAll(c, topic, kgo.FetchMaxPartitionBytes(100_000))
	plain := connect(c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	refused := send(plain, []*kgo.Record{{Topic: topic + "-small", Value: sample.Noise(2, 200_000)}})
	return map[string]any{"records": records, "refused": refused[0]}
}

func headers(c sample.Call) map[string]any {
	topic := c.Prefix + "-headers"
	send(connect(c), samples(topic, 100, 1, c))
	reference := map[string]any{}
	for _, codec := range c.Codecs {
		reference[codec] = readAll(c, "reference-"+codec)
	}
	return map[string]any{"own": readAll(c, topic), "reference": reference}
}

func tombstones(c sample.Call) map[string]any {
	topic := c.Prefix + "-tombstones"
	values := [][]byte{nil, {}, []byte("x")}
	var records []*kgo.Record
	for n := range 30 {
		records = append(records, &kgo.Record{
			Topic: topic, Key: fmt.Appendf(nil, "k%d", n), Value: values[n%3], Timestamp: time.UnixMilli(c.EpochMs + int64(n)),
		})
	}
	client := connect(c)
	send(client, records)
	refused := send(client, []*kgo.Record{{Topic: topic, Value: []byte("x")}})
	return map[string]any{"records": readAll(c, topic), "refused": refused[0]}
}

func main() {
	sample.Main(map[string]func(sample.Call) map[string]any{
		"admin": admin, "codecs": codecsScenario, "idempotence": idempotence, "rebalance": rebalance, "seek-by-time": seekByTime,
		"commit-resume": commitResume, "large-messages": largeMessages, "headers": headers, "tombstones": tombstones,
	})
}
