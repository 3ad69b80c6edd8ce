// Receives registry notifications with net/http and the registry's own idea of an event.
//
// Prints the port that it listens on. POST / takes an envelope and refuses what does not
// decode, unknown fields included; GET /report tells what has come until then, the events
// written again by encoding/json. Ends with its standard input.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// The fields and tags are those of notifications/event.go of distribution and of the image
// specification's descriptor.

type platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

type descriptor struct {
	MediaType    string            `json:"mediaType,omitempty"`
	Digest       string            `json:"digest,omitempty"`
	Size         int64             `json:"size,omitempty"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Data         []byte            `json:"data,omitempty"`
	Platform     *platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

type target struct {
	descriptor
	Length         int64        `json:"length,omitempty"`
	Repository     string       `json:"repository,omitempty"`
	FromRepository string       `json:"fromRepository,omitempty"`
	URL            string       `json:"url,omitempty"`
	Tag            string       `json:"tag,omitempty"`
	References     []descriptor `json:"references,omitempty"`
}

type event struct {
	ID        string    `json:"id,omitempty"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action,omitempty"`
	Target    target    `json:"target"`
	Request   struct {
		ID        string `json:"id"`
		Addr      string `json:"addr,omitempty"`
		Host      string `json:"host,omitempty"`
		Method    string `json:"method"`
		UserAgent string `json:"useragent"`
	} `json:"request"`
	Actor struct {
		Name string `json:"name,omitempty"`
	} `json:"actor"`
	Source struct {
		Addr       string `json:"addr,omitempty"`
		InstanceID string `json:"instanceID,omitempty"`
	} `json:"source"`
}

type report struct {
	Connections  int      `json:"connections"`
	Requests     int      `json:"requests"`
	ContentTypes []string `json:"contentTypes"`
	Events       []event  `json:"events"`
	Errors       []string `json:"errors"`
}

type receiver struct {
	mutex sync.Mutex
	seen  report
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if request.Method == http.MethodGet {
		json.NewEncoder(w).Encode(r.seen)
		return
	}
	r.seen.Requests++
	r.seen.ContentTypes = append(r.seen.ContentTypes, request.Header.Get("Content-Type"))
	var envelope struct {
		Events []event `json:"events,omitempty"`
	}
	decoder := json.NewDecoder(request.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&envelope); err != nil {
		r.seen.Errors = append(r.seen.Errors, err.Error())
		http.Error(w, "that is no envelope", http.StatusBadRequest)
		return
	}
	r.seen.Events = append(r.seen.Events, envelope.Events...)
	fmt.Fprintln(w, "accepted")
}

func (r *receiver) connection(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		r.mutex.Lock()
		r.seen.Connections++
		r.mutex.Unlock()
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	r := &receiver{}
	server := http.Server{Handler: r, ConnState: r.connection}
	go server.Serve(listener)
	io.Copy(io.Discard, os.Stdin)
}
