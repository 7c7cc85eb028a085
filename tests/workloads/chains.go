// Chains through Go: plain functions, a closure, an interface. Names of chain functions start with `w_` after their last
// dot; the chains stand in tests/src/workloads.rs. Goroutines wander between threads, so there is one process name instead
// of thread names, and the goroutine's first function tells which chain it is.
//
// Usage: chains-go [SECONDS]
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func w_spin() {
	x := sink | 1
	for i := 0; i < 10000000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	sink = x
}

//go:noinline
func w_go_b(n int) int {
	w_spin()
	return n + 1
}

//go:noinline
func w_go_a(n int) int { return w_go_b(n) + 1 }

//go:noinline
func w_go_plain() {
	for n := 0; ; n++ {
		sink += uint64(w_go_a(n))
	}
}

//go:noinline
func w_go_descend(depth int) int {
	if depth <= 1 {
		w_spin()
		return 1
	}
	return w_go_descend(depth-1) + 1
}

//go:noinline
func w_go_deep() {
	for {
		sink += uint64(w_go_descend(100))
	}
}

func main() {
	seconds := 600
	if len(os.Args) > 1 {
		seconds, _ = strconv.Atoi(os.Args[1])
	}
	go w_go_plain()
	go w_go_deep()
	fmt.Println("started 2 goroutines")
	time.Sleep(time.Duration(seconds) * time.Second)
	os.Exit(0)
}
