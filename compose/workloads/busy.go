// Works for a tenth of a second, rests for three.
package main

import "time"

var sink uint64

//go:noinline
func leafOfGo() {
	for i := uint64(0); i < 20000; i++ {
		sink += i * i
	}
}

//go:noinline
func topOfGo() { leafOfGo() }

func main() {
	for {
		for start := time.Now(); time.Since(start) < 100*time.Millisecond; {
			topOfGo()
		}
		time.Sleep(300 * time.Millisecond)
	}
}
