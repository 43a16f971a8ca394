// Shows in `immortal status` how many lines or bytes the program has written to each stream. A complete monitor in
// Go, through cgo: table.c has the table, this file what it does.
//
// Go's runtime is started when the library is loaded, and stays: its threads outlive every instance, and it handles
// the signals of its own faults. They also let SIGCHLD through, by which a pump that is not on Linux learns that the
// program has died. The conformance run passes and warns of all that. Nothing of Go may be kept by C, so an instance
// is known to C by a number alone.
package main

/*
#cgo CFLAGS: -I${SRCDIR} -I${SRCDIR}/../../../monitor-api/include
#include <stdlib.h>
#include "immortal_monitor.h"

void host_fail(const im_host *host, const char *text, size_t length);
void host_report(const im_host *host, const char *key, size_t key_length, const char *value, size_t length);
*/
import "C"

import (
	"bytes"
	"fmt"
	"sync"
	"unsafe"
)

type tally struct {
	host  *C.im_host
	lines bool
	// Of stdout and of stderr.
	counts [2]uint64
}

var (
	lock sync.Mutex
	// By the address of one byte of C's memory, which stands for the instance.
	instances = map[unsafe.Pointer]*tally{}
)

func find(instance unsafe.Pointer) *tally {
	lock.Lock()
	defer lock.Unlock()
	return instances[instance]
}

// slice borrows bytes; they are lent for the call.
func slice(str C.im_str) []byte {
	if str.len == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(str.data), int(str.len))
}

func fail(host *C.im_host, why string) {
	text := C.CString(why)
	defer C.free(unsafe.Pointer(text))
	C.host_fail(host, text, C.size_t(len(why)))
}

func report(host *C.im_host, key, value string) {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	C.host_report(host, k, C.size_t(len(key)), v, C.size_t(len(value)))
}

// guard turns a panic into a failure: none may cross.
func guard(host *C.im_host, code *C.int32_t) {
	if why := recover(); why != nil {
		fail(host, fmt.Sprintf("panicked: %v", why))
		*code = C.IM_PANICKED
	}
}

func readOptions(host *C.im_host, options *C.im_opt, count C.size_t) (lines bool, ok bool) {
	lines = true
	if count == 0 {
		return lines, true
	}
	for _, option := range unsafe.Slice(options, int(count)) {
		switch key, value := string(slice(option.key)), string(slice(option.value)); {
		case key != "unit":
		case value == "lines":
			lines = true
		case value == "bytes":
			lines = false
		default:
			fail(host, "option unit: neither bytes nor lines")
			return false, false
		}
	}
	return lines, true
}

//export tally_check
func tally_check(host *C.im_host, options *C.im_opt, count C.size_t) (code C.int32_t) {
	defer guard(host, &code)
	if _, ok := readOptions(host, options, count); !ok {
		return C.IM_FAILED
	}
	return C.IM_OK
}

//export tally_create
func tally_create(host *C.im_host, options *C.im_opt, count C.size_t) unsafe.Pointer {
	var code C.int32_t
	defer guard(host, &code)
	lines, ok := readOptions(host, options, count)
	if !ok {
		return nil
	}
	instance := C.malloc(1)
	lock.Lock()
	defer lock.Unlock()
	instances[instance] = &tally{host: host, lines: lines}
	return instance
}

//export tally_output
func tally_output(instance unsafe.Pointer, output *C.im_output) (code C.int32_t) {
	self := find(instance)
	defer guard(self.host, &code)
	if output.stream != C.IM_STDOUT && output.stream != C.IM_STDERR {
		return C.IM_OK
	}
	written := slice(output.data)
	count := len(written)
	if self.lines {
		count = bytes.Count(written, []byte{'\n'})
	}
	self.counts[output.stream-C.IM_STDOUT] += uint64(count)
	return C.IM_OK
}

//export tally_event
func tally_event(instance unsafe.Pointer, event *C.im_event) (code C.int32_t) {
	self := find(instance)
	defer guard(self.host, &code)
	if event.kind == C.IM_EVENT_EXIT {
		report(self.host, "stdout", fmt.Sprint(self.counts[0]))
		report(self.host, "stderr", fmt.Sprint(self.counts[1]))
	}
	return C.IM_OK
}

//export tally_destroy
func tally_destroy(instance unsafe.Pointer) {
	lock.Lock()
	defer lock.Unlock()
	delete(instances, instance)
	C.free(instance)
}

func main() {}
