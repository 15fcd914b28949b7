// The records that every program of tests/languages sends, and how it says what it read; see python/sample.py.
'use strict'

const { createHash } = require('node:crypto')

exports.noise = (number, length) => {
  let state = Math.imul(number, 2654435761) >>> 0
  const block = Buffer.alloc(Math.min(length, 65536))
  for (let at = 0; at < block.length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    block[at] = number % 2 === 0 ? state >>> 24 : 97 + ((state >>> 24) % 4)
  }
  return Buffer.alloc(length, block)
}

exports.key = number => (number % 5 === 0 ? null : number % 5 === 1 ? Buffer.alloc(0) : Buffer.from(`key-${number % 97}`))

exports.value = number => {
  if (number % 11 === 3) return Buffer.alloc(0)
  return number % 13 === 4 && number % 5 !== 0 ? null : exports.noise(number, ((number * 37) % 1500) + 1)
}

// Each name with all its values, in order; a missing value is null.
exports.headers = number =>
  [
    {},
    { n: [Buffer.from(`${number}`)] },
    { same: ['1', '2', '1'].map(text => Buffer.from(text)), other: [Buffer.alloc(0)] },
    { Ünïcode: [Buffer.from([0, 255])], null: [null], '': [Buffer.from('unnamed')] },
  ][number % 4]

const digest = content =>
  content === null || content === undefined
    ? null
    : `${content.length}:${createHash('sha256').update(content).digest('hex').slice(0, 16)}`

// A record as a program prints it; headers are [name, value] pairs.
exports.seen = (partition, offset, timestamp, key, value, headers) => [
  partition, Number(offset), Number(timestamp), digest(key), digest(value),
  headers.map(([name, content]) => [name, digest(content)]),
]

exports.inOrder = seen => seen.sort((a, b) => a[0] - b[0] || a[1] - b[1])

exports.askedTimes = epochMs => [0, ...[1, 11, 510, 995, 1990, 1991].map(after => epochMs + after)]

exports.pause = ms => new Promise(resolve => setTimeout(resolve, ms))

// What `look` gives as soon as it is `wanted`, or after 10 s.
exports.until = async (wanted, look) => {
  const deadline = Date.now() + 10_000
  for (;;) {
    const found = await look()
    if (found === wanted || Date.now() > deadline) return found
    await exports.pause(50)
  }
}

// Waits until `holds` does, or fails after a minute.
exports.wait = async (holds, what) => {
  const deadline = Date.now() + 60_000
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`too late: ${what()}`)
    await exports.pause(20)
  }
}

// Runs what the command line says, PROGRAM ... SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS, and prints what it saw.
exports.main = (scenarios, [name, bootstrap, prefix, epochMs, codecs]) =>
  scenarios[name]({ bootstrap, prefix, epochMs: Number(epochMs), codecs: codecs.split(',') }).then(
    saw => process.stdout.write(`${JSON.stringify(saw)}\n`, () => process.exit(0)),
    error => {
      console.error(error)
      process.exit(1)
    }
  )
