// Package sample has the records that every program of tests/languages sends, and says what was read; see python/sample.py.
package sample

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Header is a record's header; a nil value is a missing one.
type Header struct {
	Name  string
	Value []byte
}

// Noise is length bytes: pseudo-random for even numbers, four letters for odd ones; they repeat after 64 KiB.
func Noise(number, length int) []byte {
	state := uint32(number) * 2654435761
	block := make([]byte, min(length, 65536))
	for at := range block {
		state = state*1664525 + 1013904223
		if number%2 == 0 {
			block[at] = byte(state >> 24)
		} else {
			block[at] = byte(97 + (state>>24)%4)
		}
	}
	if len(block) == 0 {
		return block
	}
	return bytes.Repeat(block, length/len(block)+1)[:length]
}

// Key of record number.
func Key(number int) []byte {
	switch number % 5 {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	return []byte("key-" + strconv.Itoa(number%97))
}

// Value of record number.
func Value(number int) []byte {
	if number%11 == 3 {
		return []byte{}
	}
	if number%13 == 4 && number%5 != 0 {
		return nil
	}
	return Noise(number, number*37%1500+1)
}

// Headers of record number.
func Headers(number int) []Header {
	switch number % 4 {
	case 1:
		return []Header{{"n", []byte(strconv.Itoa(number))}}
	case 2:
		return []Header{{"same", []byte("1")}, {"same", []byte("2")}, {"other", []byte{}}, {"same", []byte("1")}}
	case 3:
		return []Header{{"Ünïcode", []byte{0, 0xff}}, {"null", nil}, {"", []byte("unnamed")}}
	}
	return nil
}

// Digest stands for a key, a value or a header's value.
func Digest(content []byte) any {
	if content == nil {
		return nil
	}
	return fmt.Sprintf("%d:%x", len(content), sha256.Sum256(content))[:len(strconv.Itoa(len(content)))+17]
}

// Seen is a record as a program prints it.
func Seen(partition int32, offset, timestamp int64, key, value []byte, headers []Header) []any {
	listed := make([]any, len(headers))
	for at, header := range headers {
		listed[at] = []any{header.Name, Digest(header.Value)}
	}
	return []any{partition, offset, timestamp, Digest(key), Digest(value), listed}
}

// Sort puts what was seen in order of partition and offset.
func Sort(seen [][]any) [][]any {
	sort.Slice(seen, func(a, b int) bool {
		if pa, pb := seen[a][0].(int32), seen[b][0].(int32); pa != pb {
			return pa < pb
		}
		return seen[a][1].(int64) < seen[b][1].(int64)
	})
	return seen
}

// Call is what the command line says: SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS.
type Call struct {
	Bootstrap, Prefix string
	EpochMs           int64
	Codecs            []string
}

// AskedTimes are the times that seek-by-time asks for.
func (c Call) AskedTimes() []int64 {
	times := []int64{0}
	for _, after := range []int64{1, 11, 510, 995, 1990, 1991} {
		times = append(times, c.EpochMs+after)
	}
	return times
}

// Must ends the program on an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Deadline ends the program when it has passed.
func Deadline(deadline time.Time, what string) {
	if time.Now().After(deadline) {
		panic("too late: " + what)
	}
}

// Until looks until wanted is seen, for 10 s at most.
func Until(wanted any, look func() any) any {
	deadline := time.Now().Add(10 * time.Second)
	for {
		found := look()
		if found == wanted || time.Now().After(deadline) {
			return found
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Main runs the scenario that the command line names and prints what it saw.
func Main(scenarios map[string]func(Call) map[string]any) {
	epoch, err := strconv.ParseInt(os.Args[4], 10, 64)
	Must(err)
	saw := scenarios[os.Args[1]](Call{os.Args[2], os.Args[3], epoch, strings.Split(os.Args[5], ",")})
	line, err := json.Marshal(saw)
	Must(err)
	fmt.Println(string(line))
}
