module leadsman/relabel/oracle

go 1.24

require (
	github.com/prometheus/prometheus v0.303.1
	gopkg.in/yaml.v2 v2.4.0
)
