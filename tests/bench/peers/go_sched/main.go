// SPDX-License-Identifier: MIT

// go_sched -- the scheduler benchmarks in Go, case by case what bench_sched does.
//
//	go_sched [--workers N] [CASE...]
//
// Prints "CASE ns_per_op rss_bytes": the median of 7 rounds after one that does not count, and the
// peak of resident memory during the case. One operation is: yield, a yield; spawn_join, a
// goroutine started and waited for; spawn_1M, one of a million goroutines that are all started,
// then all waited for; skynet_1M, one of the million leaves of the tree; chan_roundtrip, a
// rendezvous there and one back; chan_Np, an item that one of N producers sends to one consumer,
// through a channel that holds 128, with at least two workers; mutex, a lock and an unlock by as
// many goroutines as there are workers.
package main

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	rounds  = 7
	million = 1000000
)

func yield() (ops int) {
	for i := 0; i < million; i++ {
		runtime.Gosched()
	}
	return million
}

func spawnJoin() (ops int) {
	const n = 200000
	var wg sync.WaitGroup
	for i := 0; i < n; i++ {
		wg.Add(1)
		go wg.Done()
		wg.Wait()
	}
	return n
}

func spawnMillion() (ops int) {
	var wg sync.WaitGroup
	wg.Add(million)
	for i := 0; i < million; i++ {
		go wg.Done()
	}
	wg.Wait()
	return million
}

func skynet(result chan<- int64, first int64, size int64) {
	if size == 1 {
		result <- first
		return
	}
	below := make(chan int64, 10)
	for i := int64(0); i < 10; i++ {
		go skynet(below, first+i*size/10, size/10)
	}
	var sum int64
	for i := 0; i < 10; i++ {
		sum += <-below
	}
	result <- sum
}

func skynetMillion() (ops int) {
	result := make(chan int64)
	go skynet(result, 0, million)
	if sum := <-result; sum != million*(million-1)/2 {
		die("skynet adds up to %d", sum)
	}
	return million
}

func chanRoundtrip() (ops int) {
	const n = 500000
	there, back := make(chan uint64), make(chan uint64)
	go func() {
		for v := range there {
			back <- v + 1
		}
	}()
	var v uint64
	for i := 0; i < n; i++ {
		there <- v
		v = <-back
	}
	close(there)
	if v != n {
		die("%d round trips instead of %d", v, n)
	}
	return n
}

func transfer(producers uint64) (ops int) {
	const n = million
	c := make(chan uint64, 128)
	for p := uint64(0); p < producers; p++ {
		go func(from, to uint64) {
			for i := from; i < to; i++ {
				c <- i
			}
		}(p*n/producers, (p+1)*n/producers)
	}
	var sum uint64
	for i := 0; i < n; i++ {
		sum += <-c
	}
	if sum != n*(n-1)/2 {
		die("the items add up to %d", sum)
	}
	return n
}

// atLeastTwo runs a round with two workers if there is but one.
func atLeastTwo(round func() int) (ops int) {
	if was := runtime.GOMAXPROCS(0); was < 2 {
		defer runtime.GOMAXPROCS(was)
		runtime.GOMAXPROCS(2)
	}
	return round()
}

func from1() (ops int) { return atLeastTwo(func() int { return transfer(1) }) }
func from2() (ops int) { return atLeastTwo(func() int { return transfer(2) }) }
func from8() (ops int) { return atLeastTwo(func() int { return transfer(8) }) }

func mutex() (ops int) {
	const n = million
	var lock sync.Mutex
	var wg sync.WaitGroup
	workers, guarded := runtime.GOMAXPROCS(0), 0
	wg.Add(workers)
	for w := 0; w < workers; w++ {
		go func() {
			for i := 0; i < n; i++ {
				lock.Lock()
				guarded++
				lock.Unlock()
			}
			wg.Done()
		}()
	}
	wg.Wait()
	if guarded != workers*n {
		die("the mutex let two in")
	}
	return guarded
}

func die(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "go_sched: "+format+"\n", args...)
	os.Exit(1)
}

// peakReset makes the peak of resident memory start again from what is resident now.
func peakReset() {
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

func peak() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		die("%v", err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib * 1024
		}
	}
	return 0
}

func run(name string, round func() int) {
	peakReset()
	round()
	ns := make([]float64, rounds)
	for i := range ns {
		begin := time.Now()
		ops := round()
		ns[i] = float64(time.Since(begin).Nanoseconds()) / float64(ops)
	}
	sort.Float64s(ns)
	fmt.Printf("%s %.2f %d\n", name, ns[rounds/2], peak())
}

func main() {
	cases := []struct {
		name  string
		round func() int
	}{
		{"yield", yield}, {"spawn_join", spawnJoin},
		{"spawn_1M", spawnMillion}, {"skynet_1M", skynetMillion},
		{"chan_roundtrip", chanRoundtrip},
		{"chan_1p", from1}, {"chan_2p", from2}, {"chan_8p", from8},
		{"mutex", mutex},
	}
	workers, wanted := 1, map[string]bool{}
	for i := 1; i < len(os.Args); i++ {
		if os.Args[i] != "--workers" {
			wanted[os.Args[i]] = true
			continue
		}
		if i++; i == len(os.Args) {
			die("--workers takes a number")
		}
		n, err := strconv.Atoi(os.Args[i])
		if err != nil || n < 1 {
			die("--workers takes a number from 1, not '%s'", os.Args[i])
		}
		workers = n
	}
	runtime.GOMAXPROCS(workers)
	for _, c := range cases {
		if len(wanted) == 0 || wanted[c.name] {
			run(c.name, c.round)
		}
	}
}
