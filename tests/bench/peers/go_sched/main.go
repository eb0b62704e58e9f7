// SPDX-License-Identifier: MIT

// go_sched -- the scheduler benchmarks in Go, case by case what bench_sched does.
//
//	go_sched [--workers N] [CASE...]
//
// Prints "CASE ns_per_op rss_bytes": the median of 7 rounds after one that does not count, and the
// peak of resident memory during the case. One operation is: yield, a yield; spawn_join, a
// goroutine started and waited for; spawn_1M, one of a million goroutines that are all started,
// then all waited for; skynet_1M, one of the million leaves of the tree.
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
