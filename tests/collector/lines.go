package main

import (
	"context"
	"errors"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/xexporter"
	"go.opentelemetry.io/collector/pdata/pprofile"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// linesConfig says where the lines go.
type linesConfig struct {
	Path string `mapstructure:"path"`
}

// Validate refuses a configuration without a path.
func (c *linesConfig) Validate() error {
	if c.Path == "" {
		return errors.New("path is missing")
	}
	return nil
}

// lines writes each batch as one line of OTLP JSON.
type lines struct {
	component.StartFunc
	component.ShutdownFunc
	path string
	lock sync.Mutex
}

func newLinesFactory() exporter.Factory {
	return xexporter.NewFactory(
		component.MustNewType("lines"),
		func() component.Config { return &linesConfig{} },
		xexporter.WithTraces(func(_ context.Context, _ exporter.Settings, config component.Config) (exporter.Traces, error) {
			return &lines{path: config.(*linesConfig).Path}, nil
		}, component.StabilityLevelDevelopment),
		xexporter.WithProfiles(func(_ context.Context, _ exporter.Settings, config component.Config) (xexporter.Profiles, error) {
			return &lines{path: config.(*linesConfig).Path}, nil
		}, component.StabilityLevelDevelopment),
	)
}

// Capabilities says that batches are only read.
func (l *lines) Capabilities() consumer.Capabilities {
	return consumer.Capabilities{}
}

// ConsumeTraces writes spans.
func (l *lines) ConsumeTraces(_ context.Context, traces ptrace.Traces) error {
	text, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
	return l.write(text, err)
}

// ConsumeProfiles writes profiles with their dictionary.
func (l *lines) ConsumeProfiles(_ context.Context, profiles pprofile.Profiles) error {
	text, err := (&pprofile.JSONMarshaler{}).MarshalProfiles(profiles)
	return l.write(text, err)
}

func (l *lines) write(text []byte, err error) error {
	if err != nil {
		return err
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(text, '\n')); err != nil {
		file.Close()
		return err
	}
	return file.Close()
}
