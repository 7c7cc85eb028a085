// Places in Go code whose function, file and line are known. See places.c.
//
// Usage: places-go [SECONDS]
package main

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

var sink uint64

//go:noinline
func p_leaf(x uint64) uint64 {
	for i := 0; i < 20000; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

//go:noinline
func p_middle(x uint64) uint64 {
	x = p_leaf(x)
	return x + 1
}

//go:noinline
func p_outer(x uint64) uint64 {
	x = p_middle(x)
	return x + 1
}

func main() {
	seconds := 600
	if len(os.Args) > 1 {
		if n, err := strconv.Atoi(os.Args[1]); err == nil {
			seconds = n
		}
	}
	fmt.Println("started 1 thread")
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for time.Now().Before(end) {
		sink = p_outer(sink)
	}
}
