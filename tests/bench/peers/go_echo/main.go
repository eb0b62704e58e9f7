// SPDX-License-Identifier: MIT

// go_echo -- the echo server that one writes in Go: a goroutine and a 4 KiB buffer per connection.
//
//	go_echo HOST:PORT [--cpu LIST] [--workers N]
//
// Prints "listening on HOST:PORT" when clients may connect. SIGTERM ends it.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func die(format string, args ...interface{}) {
	fmt.Fprintf(os.Stderr, "go_echo: "+format+"\n", args...)
	os.Exit(1)
}

// pin moves every thread there is to the CPUs of the list; later threads inherit that.
func pin(list string) {
	var mask [16]uint64
	for _, s := range strings.Split(list, ",") {
		cpu, err := strconv.Atoi(s)
		if err != nil || cpu < 0 || cpu >= 64*len(mask) {
			die("--cpu takes numbers with commas between them, not '%s'", list)
		}
		mask[cpu/64] |= 1 << (cpu % 64)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		die("%v", err)
	}
	for _, t := range threads {
		tid, _ := strconv.Atoi(t.Name())
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid),
			unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		if errno != 0 {
			die("cannot run on CPU %s: %v", list, errno)
		}
	}
}

func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err = c.Write(buf[:n]); err != nil {
			return
		}
	}
}

func main() {
	addr, workers := "", 1
	for i := 1; i < len(os.Args); i++ {
		arg := os.Args[i]
		switch {
		case arg == "--workers" && i+1 < len(os.Args):
			i++
			n, err := strconv.Atoi(os.Args[i])
			if err != nil || n < 1 {
				die("--workers takes a number from 1, not '%s'", os.Args[i])
			}
			workers = n
		case arg == "--cpu" && i+1 < len(os.Args):
			i++
			pin(os.Args[i])
		case !strings.HasPrefix(arg, "-") && addr == "":
			addr = arg
		default:
			die("what is '%s'? usage: HOST:PORT [--cpu LIST] [--workers N]", arg)
		}
	}
	runtime.GOMAXPROCS(workers)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	door, err := net.Listen("tcp", addr)
	if err != nil {
		die("%v", err)
	}
	fmt.Printf("listening on %s\n", door.Addr())
	go func() {
		for {
			c, err := door.Accept() // TCP_NODELAY is Go's default
			if err != nil {
				die("%v", err)
			}
			go echo(c)
		}
	}()
	<-stop
}
