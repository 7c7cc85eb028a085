package main

import (
	"fmt"
	"sort"
)

type shape interface{ area() int }

type square struct{ side int }

//go:noinline
func (s square) area() int { return mix(s.side) * s.side }

func mix(x int) int { return x ^ (x >> 3) }

//go:noinline
func total(shapes []shape) (sum int) {
	for _, s := range shapes {
		sum += s.area()
	}
	func() {
		defer func() { sum++ }()
		sum += mix(sum)
	}()
	return sum
}

func main() {
	shapes := []shape{square{3}, square{1}, square{2}}
	sort.Slice(shapes, func(i, j int) bool { return shapes[i].area() < shapes[j].area() })
	fmt.Println(total(shapes))
}
