package main

import (
	"fmt"
	"sort"
)

//go:noinline
func inner(n int) []int {
	values := make([]int, n)
	for i := range values {
		values[i] = (i * 7919) % (n + 1)
	}
	sort.Ints(values)
	return values
}

func main() {
	fmt.Println(len(inner(100)))
}
