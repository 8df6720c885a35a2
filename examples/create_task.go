// Create an OMS task and follow it until it ends. Needs: Go 1.21 or later; run with: go run create_task.go
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"
)

type object = map[string]any

var env = os.Getenv

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// call sends a request that is signed with SDK-HMAC-SHA256.
func call(method, tail string, body []byte, answer any) error {
	at, err := url.Parse(env("WHIMBREL_ENDPOINT") + "/v2/" + env("WHIMBREL_PROJECT") + tail)
	if err != nil {
		return err
	}
	date := time.Now().UTC().Format("20060102T150405Z")
	canonical := fmt.Sprintf("%s\n%s/\n\nhost:%s\nx-sdk-date:%s\n\nhost;x-sdk-date\n%s", method, at.Path, at.Host, date, digest(body))
	mac := hmac.New(sha256.New, []byte(env("WHIMBREL_SK")))
	fmt.Fprintf(mac, "SDK-HMAC-SHA256\n%s\n%s", date, digest([]byte(canonical)))
	request, err := http.NewRequest(method, at.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Sdk-Date", date)
	request.Header.Set("Authorization", fmt.Sprintf("SDK-HMAC-SHA256 Access=%s, SignedHeaders=host;x-sdk-date, Signature=%x",
		env("WHIMBREL_AK"), mac.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s", response.Status, text)
	}
	return json.Unmarshal(text, answer)
}

func main() {
	body, _ := json.Marshal(object{
		"task_type": "prefix", "enable_metadata_migration": true,
		"src_node": object{"cloud_type": "AWS", "region": env("SOURCE_REGION"), "bucket": env("SOURCE_BUCKET"), "object_key": []string{""},
			"ak": env("WHIMBREL_SOURCE_ACCESS_KEY"), "sk": env("WHIMBREL_SOURCE_SECRET_KEY")},
		"dst_node": object{"region": env("TARGET_REGION"), "bucket": env("TARGET_BUCKET"),
			"ak": env("WHIMBREL_TARGET_ACCESS_KEY"), "sk": env("WHIMBREL_TARGET_SECRET_KEY")},
	})
	var task struct {
		ID         int64 `json:"id"`
		Status     int   `json:"status"`
		Total      int64 `json:"total_num"`
		Successful int64 `json:"successful_num"`
		Failed     int64 `json:"failed_num"`
	}
	if err := call("POST", "/tasks", body, &task); err != nil {
		log.Fatal(err)
	}
	for path := fmt.Sprintf("/tasks/%d", task.ID); ; time.Sleep(time.Second) {
		if err := call("GET", path, nil, &task); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("status %d: %d of %d objects, %d failed\n", task.Status, task.Successful, task.Total, task.Failed)
		switch task.Status {
		case 5: // succeeded
			return
		case 3, 4: // paused, failed
			os.Exit(1)
		}
	}
}
