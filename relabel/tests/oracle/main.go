// Writes golden/cases.jsonl: reads cases, one JSON object a line, and writes each with what Prometheus makes of it.
// To do all again with another Prometheus: go get github.com/prometheus/prometheus@VERSION, then
// go run . < ../golden/cases.jsonl > new.jsonl
package main

import (
	"bufio"
	"encoding/json"
	"os"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"gopkg.in/yaml.v2"
)

type testCase struct {
	Rules  json.RawMessage    `json:"rules"`
	Labels map[string]string  `json:"labels"`
	Error  *string            `json:"error,omitempty"`
	Want   *map[string]string `json:"want"`
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for in.Scan() {
		var c testCase
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			panic(err)
		}
		c.Error, c.Want = nil, nil
		var rules []*relabel.Config
		// JSON is YAML.
		if err := yaml.UnmarshalStrict(c.Rules, &rules); err != nil {
			text := err.Error()
			c.Error = &text
		} else if result, keep := relabel.Process(labels.FromMap(c.Labels), rules...); keep {
			set := result.Map()
			c.Want = &set
		}
		if err := out.Encode(c); err != nil {
			panic(err)
		}
	}
}
