// The probe says from inside a pod what the pod can see and do: one word and its arguments, one answer.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

var source string // the digest of this file, set by the linker so that a change is built again

var commands = map[string]func(arguments []string) error{
	"dmesg":  dmesg,
	"lookup": lookup,
	"dial":   dial,
	"get":    get,
	"serve":  serve,
	"write":  write,
	"eat":    eat,
	"sleep":  sleep,
	"exit":   exit,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "probe: one of dmesg, lookup, dial, get, serve, write, eat, sleep, exit")
		os.Exit(64)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// dmesg prints the kernel's log.
func dmesg([]string) error {
	buffer := make([]byte, 1<<16)
	n, err := syscall.Klogctl(3, buffer)
	fmt.Print(string(buffer[:max(n, 0)]))
	return err
}

// lookup NAME prints its addresses, asking for up to 30 seconds.
func lookup(arguments []string) error {
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		var found []string
		if found, err = net.LookupHost(arguments[0]); err == nil {
			fmt.Println(found)
			return nil
		}
	}
	return err
}

// dial HOST:PORT says whether somebody accepts the connection.
func dial(arguments []string) error {
	connection, err := net.DialTimeout("tcp", arguments[0], 5*time.Second)
	if err == nil {
		fmt.Println("connected to", connection.RemoteAddr())
		err = connection.Close()
	}
	return err
}

// get URL [TOKEN_FILE] prints the status and the body.
func get(arguments []string) error {
	request, err := http.NewRequest("GET", arguments[0], nil)
	if err != nil {
		return err
	}
	if len(arguments) > 1 {
		token, err := os.ReadFile(arguments[1])
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+string(token))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	reply, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	fmt.Println(reply.StatusCode, string(body))
	return err
}

// serve PORT answers every request with the host's name.
func serve(arguments []string) error {
	return http.ListenAndServe(":"+arguments[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name, _ := os.Hostname()
		fmt.Fprintln(w, name)
	}))
}

// write PATH tries to make a file.
func write(arguments []string) error {
	return os.WriteFile(arguments[0], []byte("x"), 0o600)
}

// eat MIB takes and touches that much memory.
func eat(arguments []string) error {
	size, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	memory := make([]byte, size<<20)
	for at := 0; at < len(memory); at += 4096 {
		memory[at] = byte(at) | 1
	}
	fmt.Println("has", len(memory)>>20, "MiB")
	time.Sleep(time.Second)
	fmt.Println(memory[len(memory)-4096])
	return nil
}

func sleep(arguments []string) error {
	length, err := time.ParseDuration(arguments[0])
	time.Sleep(length)
	return err
}

// exit CODE [MESSAGE] ends with a code and a termination message.
func exit(arguments []string) error {
	code, err := strconv.Atoi(arguments[0])
	if err != nil {
		return err
	}
	if len(arguments) > 1 {
		if err := os.WriteFile("/dev/termination-log", []byte(arguments[1]), 0o600); err != nil {
			return err
		}
	}
	os.Exit(code)
	return nil
}
