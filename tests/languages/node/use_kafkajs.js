// KafkaJS: use_kafkajs.js PACKAGE SCENARIO ..., where PACKAGE is the name under which a version is installed (package.json).
'use strict'

const zstd = require('@bokuweb/zstd-wasm')
const lz4 = require('lz4-napi')
const { askedTimes, headers, inOrder, key, main, noise, seen, until, value, wait } = require('./sample')

const library = process.argv[2]
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require(library)
const oneHeaderForEachName = library === 'kafkajs-older'

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
})

const compressions = {
  none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD,
}

const connect = c =>
  new Kafka({ clientId: 'languages', brokers: [c.bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 5 } })

async function withProducer(c, options, work) {
  const producer = connect(c).producer(options)
  await producer.connect()
  try {
    return await work(producer)
  } finally {
    await producer.disconnect()
  }
}

const send = (c, topic, messages, compression = CompressionTypes.None) =>
  withProducer(c, { allowAutoTopicCreation: false }, producer => producer.send({ topic, messages, compression, acks: -1 }))

// The protocol's number of an error, which KafkaJS wraps once or twice.
function code(error) {
  const inner = error.errors ? error.errors[0] : error.cause || error.originalError
  if (inner) return code(inner)
  if (error.code === undefined) throw error
  return error.code
}

const refused = call => call.then(() => 0, code)

// A header's value must not be missing here; version 1 has one value for each name.
const sentHeaders = number =>
  Object.fromEntries(
    Object.entries(headers(number)).map(([name, values]) => {
      const sent = values.map(content => content || Buffer.alloc(0))
      return [name, oneHeaderForEachName || sent.length === 1 ? sent[sent.length - 1] : sent]
    })
  )

const samples = (count, partitions, c) =>
  Array.from({ length: count }, (_, n) => ({
    partition: n % partitions, key: key(n), value: value(n), headers: sentHeaders(n), timestamp: `${c.epochMs + 10 * n}`,
  }))

const numbered = (letter, first, count, partitions) =>
  Array.from({ length: count }, (_, n) => ({ partition: (first + n) % partitions, value: `${letter}${first + n}` }))

const timing = { sessionTimeout: 10_000, heartbeatInterval: 200, rebalanceTimeout: 20_000 }

async function join(c, groupId, topic, eachMessage, more = {}) {
  const consumer = connect(c).consumer({ groupId, maxWaitTimeInMs: 200, ...timing, ...more })
  const member = { consumer, owned: [] }
  consumer.on(consumer.events.GROUP_JOIN, event => (member.owned = event.payload.memberAssignment[topic] || []))
  if (consumer.events.REBALANCING) consumer.on(consumer.events.REBALANCING, () => (member.owned = []))
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({ autoCommit: false, eachMessage })
  return member
}

async function ends(c, topic) {
  const admin = connect(c).admin()
  await admin.connect()
  const offsets = await admin.fetchTopicOffsets(topic)
  await admin.disconnect()
  return offsets
}

const pairs = headers =>
  Object.entries(headers || {}).flatMap(([name, values]) => [].concat(values).map(content => [name, content]))

async function readAll(c, topic, more) {
  const total = (await ends(c, topic)).reduce((sum, { high }) => sum + Number(high), 0)
  const records = []
  const eachMessage = async ({ partition, message: m }) =>
    records.push(seen(partition, m.offset, m.timestamp, m.key, m.value, pairs(m.headers)))
  const { consumer } = await join(c, `${c.prefix}-reads-${topic}`, topic, eachMessage, more)
  await wait(() => records.length >= total, () => `${records.length} of ${total} came`)
  await consumer.disconnect()
  return inOrder(records)
}

async function admin(c) {
  const client = connect(c).admin()
  await client.connect()
  const topic = `${c.prefix}-admin`
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic }
  const create = (name, content) =>
    client
      .createTopics({ topics: [{ topic: name, numPartitions: 3, configEntries: [{ name: 'retention.ms', value: content }] }] })
      // false: there was a topic of that name.
      .then(made => (made ? 0 : 36), code)
  const partitions = async () => (await client.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length
  const retention = async () => {
    const described = await client.describeConfigs({ resources: [{ ...resource, configNames: ['retention.ms'] }], includeSynonyms: false })
    return described.resources[0].configEntries[0].configValue
  }
  const alter = content =>
    refused(client.alterConfigs({ resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: content }] }], validateOnly: false }))
  const grow = count => refused(client.createPartitions({ topicPartitions: [{ topic, count }] }))
  const listed = async () => (await client.listTopics()).includes(topic)
  const saw = { created: await create(topic, '1234567'), again: await create(topic, '1'), 'bad name': await create('no spaces', '1') }
  saw['bad config'] = await create(`${topic}-bad`, 'soon')
  saw.partitions = await until(3, partitions)
  saw.retention = await retention()
  await grow(5)
  saw.grown = await until(5, partitions)
  saw.shrunk = await grow(2)
  await alter('7654321')
  saw.altered = await until('7654321', retention)
  saw['badly altered'] = await alter('soon')
  saw.listed = await until(true, listed)
  const cluster = await client.describeCluster()
  saw.brokers = cluster.brokers.length
  saw['cluster id'] = cluster.clusterId.length
  await client.deleteTopics({ topics: [topic] })
  saw['listed after deletion'] = await until(false, listed)
  saw['deleted again'] = await refused(client.deleteTopics({ topics: [topic] }))
  return saw
}

async function codecs(c) {
  const read = {}
  for (const codec of c.codecs) {
    const topic = `${c.prefix}-codecs-${codec}`
    await send(c, topic, samples(300, 3, c), compressions[codec])
    read[codec] = await readAll(c, topic)
  }
  return { read }
}

async function idempotence(c) {
  const placed = [[], [], []]
  await withProducer(c, { idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false }, async producer => {
    // One after the other: KafkaJS gives requests that are under way together the same sequence numbers, or another order.
    for (let first = 0; first < 3_000; first += 30) {
      const answer = await producer.send({ topic: `${c.prefix}-idempotence`, messages: numbered('v', first, 30, 3), acks: -1 })
      for (const { partition, baseOffset } of answer) {
        for (let n = 0; n < 10; n++) placed[partition].push(Number(baseOffset) + n)
      }
    }
  })
  return { placed }
}

async function rebalance(c) {
  const topic = `${c.prefix}-rebalance`
  const members = []
  const steps = []
  const values = new Set()
  const settled = () => {
    const owned = members.flatMap(member => member.owned)
    return owned.length === 6 && new Set(owned).size === 6 && members.every(member => member.owned.length > 0)
  }
  const step = async () => {
    const before = 120 * steps.length
    await wait(settled, () => JSON.stringify(members.map(member => member.owned)))
    steps.push(members.map(member => member.owned.length).sort())
    await send(c, topic, numbered('r', before, 120, 6))
    await wait(() => values.size >= before + 120, () => `${values.size} of ${before + 120} came`)
  }
  for (let n = 0; n < 3; n++) {
    members.push(await join(c, topic, topic, async ({ message }) => values.add(`${message.value}`)))
    await step()
  }
  for (let n = 0; n < 2; n++) {
    await members.shift().consumer.disconnect()
    await step()
  }
  await members.shift().consumer.disconnect()
  return { steps, seen: values.size }
}

async function seekByTime(c) {
  const topic = `${c.prefix}-seek-by-time`
  const messages = numbered('t', 0, 600, 1).map((message, n) => ({ ...message, timestamp: `${c.epochMs + 10 * Math.floor(n / 3)}` }))
  await send(c, topic, messages)
  const client = connect(c).admin()
  await client.connect()
  const offsets = []
  for (const asked of askedTimes(c.epochMs)) {
    offsets.push(Number((await client.fetchTopicOffsetsByTimestamp(topic, asked))[0].offset))
  }
  const read = []
  const { consumer } = await join(c, topic, topic, async ({ message }) => read.push(`${message.value}`))
  await wait(() => read.length > 0, () => 'nothing came')
  consumer.seek({ topic, partition: 0, offset: `${offsets[4]}` })
  await wait(() => read.includes('t599'), () => 'the end did not come')
  // What came after the seek begins where the order breaks, or after the record before it.
  const last = read.slice(read.lastIndexOf('t300'))
  await consumer.disconnect()
  const [{ low, high }] = await ends(c, topic)
  return { offsets, first: last[0], ends: [Number(low), Number(high)] }
}

async function commitResume(c) {
  const topic = `${c.prefix}-commit-resume`
  await send(c, topic, numbered('c', 0, 300, 1))
  const client = connect(c).admin()
  await client.connect()
  const committed = async () => {
    const found = await client.fetchOffsets(oneHeaderForEachName ? { groupId: topic, topic } : { groupId: topic, topics: [topic] })
    const partition = oneHeaderForEachName ? found[0] : found[0].partitions[0]
    return { offset: Number(partition.offset), metadata: partition.metadata }
  }
  // Reads until a number of records has come, commits behind the last of them, and leaves the group.
  const run = async (count, metadata) => {
    const offsets = []
    const { consumer } = await join(c, topic, topic, async ({ message }) => offsets.push(Number(message.offset)))
    await wait(() => offsets.length >= count, () => `${offsets.length} of ${count} came`)
    await consumer.commitOffsets([{ topic, partition: 0, offset: `${offsets[count - 1] + 1}`, metadata }])
    await consumer.disconnect()
    return offsets.slice(0, count)
  }
  await run(100, 'one hundred')
  const found = await committed()
  const rest = await run(200, '')
  const end = await committed()
  return { committed: found.offset, metadata: found.metadata, 'resumed at': rest[0], read: rest.length, 'committed at the end': end.offset }
}

async function largeMessages(c) {
  const topic = `${c.prefix}-large-messages`
  for (const codec of ['none', 'gzip']) {
    for (let n = 0; n < 2; n++) {
      const message = { partition: 0, key: 'large', value: noise(n, 3_000_000), timestamp: `${c.epochMs + n}` }
      await send(c, topic, [message], compressions[codec])
    }
  }
  const records = await readAll(c, topic, { maxBytesPerPartition: 100_000 })
  const answer = await refused(send(c, `${topic}-small`, [{ partition: 0, value: noise(2, 200_000) }]))
  return { records, refused: answer }
}

async function allHeaders(c) {
  const topic = `${c.prefix}-headers`
  await send(c, topic, samples(100, 1, c))
  const reference = {}
  for (const codec of c.codecs) reference[codec] = await readAll(c, `reference-${codec}`)
  return { own: await readAll(c, topic), reference }
}

async function tombstones(c) {
  const topic = `${c.prefix}-tombstones`
  const values = [null, '', 'x']
  const messages = Array.from({ length: 30 }, (_, n) => ({
    partition: 0, key: `k${n}`, value: values[n % 3], timestamp: `${c.epochMs + n}`,
  }))
  await send(c, topic, messages)
  const answer = await refused(send(c, topic, [{ partition: 0, value: 'x' }]))
  return { records: await readAll(c, topic), refused: answer }
}

zstd.init().then(() =>
  main(
    {
      admin, codecs, idempotence, rebalance, 'seek-by-time': seekByTime, 'commit-resume': commitResume,
      'large-messages': largeMessages, headers: allHeaders, tombstones,
    },
    process.argv.slice(3)
  )
)
