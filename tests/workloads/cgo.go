// Chains through Go and C both ways: Go calls C, which burns; Go calls C, which calls Go back, which burns. The chains
// stand in tests/src/odd.rs.
//
// Usage: chains-cgo [SECONDS]
package main

/*
#include <stdint.h>

static volatile uint64_t w_sink;

__attribute__((noinline)) static void w_c_burn(void) {
	uint64_t x = w_sink | 1;
	for (int i = 0; i < 3000000; i++) x = x * 6364136223846793005u + 1442695040888963407u;
	w_sink = x;
}

__attribute__((noinline)) static void w_c_outer(void) {
	w_c_burn();
	w_sink++;
}

extern void w_go_callback(void);

__attribute__((noinline)) static void w_c_calls_back(void) {
	w_go_callback();
	w_sink++;
}
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func w_go_spin() {
	x := sink | 1
	for i := 0; i < 3000000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//export w_go_callback
func w_go_callback() {
	w_go_spin()
	sink++
}

//go:noinline
func w_go_calls_c() {
	for {
		C.w_c_outer()
	}
}

//go:noinline
func w_go_called_back() {
	for {
		C.w_c_calls_back()
	}
}

// The collector works on the system stack of whatever thread it runs on.
//
//go:noinline
func w_go_collects() {
	for {
		sink += uint64(len(make([]byte, 1<<16)))
		runtime.GC()
		w_go_spin()
	}
}

func main() {
	seconds := 600
	if len(os.Args) > 1 {
		seconds, _ = strconv.Atoi(os.Args[1])
	}
	go w_go_calls_c()
	go w_go_called_back()
	go w_go_collects()
	fmt.Println("started 3 goroutines")
	time.Sleep(time.Duration(seconds) * time.Second)
	os.Exit(0)
}
