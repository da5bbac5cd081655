package local

const childDir = "CAPTURE_TEST_STORE_CHILD_DIR"

func child(string) {}
