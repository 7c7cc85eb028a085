// Prints, for each address, what Go's own readers of DWARF and of Go's function table say of it.
package main

import (
	"debug/dwarf"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"os"
	"strconv"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func line(data *dwarf.Data, pc uint64) string {
	unit, err := data.Reader().SeekPC(pc)
	if err != nil {
		return "-"
	}
	lines, err := data.LineReader(unit)
	check(err)
	if lines == nil {
		return "-"
	}
	var entry dwarf.LineEntry
	if lines.SeekPC(pc, &entry) != nil {
		return "-"
	}
	return fmt.Sprintf("%s:%d", entry.File.Name, entry.Line)
}

func main() {
	file, err := elf.Open(os.Args[1])
	check(err)
	var data *dwarf.Data
	if file.Section(".debug_info") != nil {
		data, err = file.DWARF()
		check(err)
	}
	var table *gosym.Table
	if section := file.Section(".gopclntab"); section != nil {
		bytes, err := section.Data()
		check(err)
		table, err = gosym.NewTable(nil, gosym.NewLineTable(bytes, file.Section(".text").Addr))
		check(err)
	}
	for _, text := range os.Args[2:] {
		pc, err := strconv.ParseUint(text, 0, 64)
		check(err)
		if data != nil {
			fmt.Print(line(data, pc), " ")
		}
		if table != nil {
			name, number, function := table.PCToLine(pc)
			if function != nil {
				fmt.Print(function.Name, " ", name, ":", number)
			}
		}
		fmt.Println()
	}
}
