/* libnvidia-ml.so.1 for tests: NVML's C interface, answered by a driver process over a Unix socket.
 *
 * Each call is one request and one reply of fixed size (tests/driver/wire.py has the same layout). The socket is named
 * by FAKE_NVML_SOCKET. A mutex makes calls thread-safe; a forked child opens a connection of its own. Without a driver
 * at the socket nvmlInit says "driver not loaded", and so does every call once the driver is gone; nvmlInit again
 * connects again. Structures and codes follow NVIDIA's public nvml.h; a function that is not here is one this driver
 * is too old for, and pynvml says "function not found".
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef int ret_t;
typedef void *device_t;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, NOT_LOADED = 9, VERSION = 25 };
enum {
    INIT = 1, DRIVER_VERSION, COUNT, FIND_UUID, UUID, NAME, ENERGY, POWER_USAGE, FIELD, UTILIZATION, MEMORY, TEMPERATURE,
    CLOCK, GET_LIMIT, SET_LIMIT, LIMIT_RANGE, DEFAULT_LIMIT, ENFORCED_LIMIT, EVENT_REASONS, PROCESSES, MIG_MODE,
    ARCHITECTURE, CAPABILITY, PERSISTENCE, C2C_MODE, MIG_PARENT, CHECK
};
#define MAGIC 0x4c4d564eu /* "NVML" */

struct request { uint32_t magic, op, device, pad; uint64_t a, b; char text[96]; };
struct process { uint32_t pid, sm_percent, memory_mib; };
struct reply { int32_t code; uint32_t count; uint64_t a, b, c, d; union { char text[96]; struct process processes[8]; } u; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd = -1, references = 0;
static pid_t owner = 0;

static int say(const void *data, size_t size) {
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fd, (const char *)data + sent, size - sent, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        sent += (size_t)n;
    }
    return 0;
}

static int hear(void *data, size_t size) {
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(fd, (char *)data + got, size - got, 0);
        if (n <= 0) return -1;
        got += (size_t)n;
    }
    return 0;
}

static int open_connection(void) {
    const char *path = getenv("FAKE_NVML_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) { close(fd); fd = -1; return -1; }
    owner = getpid();
    return 0;
}

static void hang_up(void) { if (fd >= 0) close(fd); fd = -1; }

/* One exchange; the lock is held. */
static ret_t exchange(struct request *request, struct reply *reply) {
    if (say(request, sizeof *request) || hear(reply, sizeof *reply)) { hang_up(); return NOT_LOADED; }
    return reply->code;
}

static ret_t ask_text(uint32_t op, uint32_t device, uint64_t a, uint64_t b, const char *text, struct reply *reply) {
    struct request request = {.magic = MAGIC, .op = op, .device = device, .a = a, .b = b};
    if (text) strncpy(request.text, text, sizeof request.text - 1);
    pthread_mutex_lock(&lock);
    ret_t code;
    if (!references) code = UNINITIALIZED;
    else {
        if (owner != getpid()) {
            /* A forked child: the parent's connection is not its own, and its driver is initialised as the parent's. */
            struct request init = {.magic = MAGIC, .op = INIT};
            hang_up();
            if (!open_connection()) exchange(&init, reply);
        }
        code = fd < 0 ? NOT_LOADED : exchange(&request, reply);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

static ret_t ask(uint32_t op, device_t device, uint64_t a, uint64_t b, struct reply *reply) {
    if (!device) return INVALID;
    return ask_text(op, (uint32_t)(uintptr_t)device - 1, a, b, NULL, reply);
}

ret_t nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    struct request request = {.magic = MAGIC, .op = INIT};
    struct reply reply;
    pthread_mutex_lock(&lock);
    if (fd >= 0 && owner != getpid()) hang_up();
    ret_t code = fd < 0 && open_connection() ? NOT_LOADED : exchange(&request, &reply);
    if (!code) references++;
    pthread_mutex_unlock(&lock);
    return code;
}
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlInit(void) { return nvmlInitWithFlags(0); }

ret_t nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    ret_t code = references ? OK : UNINITIALIZED;
    if (references && !--references) hang_up();
    pthread_mutex_unlock(&lock);
    return code;
}

const char *nvmlErrorString(ret_t code) {
    switch (code) {
    case 0: return "Success";
    case 1: return "Uninitialized";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 7: return "Insufficient Size";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 13: return "Function Not Found";
    case 15: return "GPU is lost";
    default: return "Unknown Error";
    }
}

static ret_t copy_text(ret_t code, const struct reply *reply, char *out, unsigned size) {
    if (code) return code;
    if (strlen(reply->u.text) >= size) return TOO_SMALL;
    strcpy(out, reply->u.text);
    return OK;
}

ret_t nvmlSystemGetDriverVersion(char *out, unsigned size) {
    struct reply r;
    return copy_text(ask_text(DRIVER_VERSION, 0, 0, 0, NULL, &r), &r, out, size);
}
ret_t nvmlSystemGetNVMLVersion(char *out, unsigned size) { return nvmlSystemGetDriverVersion(out, size); }

ret_t nvmlDeviceGetCount_v2(unsigned *out) {
    struct reply r;
    ret_t code = ask_text(COUNT, 0, 0, 0, NULL, &r);
    if (!code) *out = (unsigned)r.a;
    return code;
}
ret_t nvmlDeviceGetCount(unsigned *out) { return nvmlDeviceGetCount_v2(out); }

static ret_t handle_of(ret_t code, uint64_t index, device_t *out) {
    if (!code) *out = (device_t)(uintptr_t)(index + 1);
    return code;
}
ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *out) {
    struct reply r;
    return handle_of(ask_text(CHECK, index, 0, 0, NULL, &r), index, out);
}
ret_t nvmlDeviceGetHandleByIndex(unsigned index, device_t *out) { return nvmlDeviceGetHandleByIndex_v2(index, out); }
ret_t nvmlDeviceGetHandleByUUID(const char *uuid, device_t *out) {
    struct reply r = {0};
    ret_t code = ask_text(FIND_UUID, 0, 0, 0, uuid, &r);
    return handle_of(code, r.a, out);
}
ret_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device_t slice, device_t *out) {
    struct reply r = {0};
    ret_t code = ask(MIG_PARENT, slice, 0, 0, &r);
    return handle_of(code, r.a, out);
}
ret_t nvmlDeviceGetIndex(device_t d, unsigned *out) {
    struct reply r;
    ret_t code = ask(CHECK, d, 0, 0, &r);
    if (!code) *out = (unsigned)(uintptr_t)d - 1;
    return code;
}
ret_t nvmlDeviceGetMinorNumber(device_t d, unsigned *out) { return nvmlDeviceGetIndex(d, out); }

#define TEXT_GETTER(function, op)                                                                                      \
    ret_t function(device_t d, char *out, unsigned size) { struct reply r; return copy_text(ask(op, d, 0, 0, &r), &r, out, size); }
TEXT_GETTER(nvmlDeviceGetUUID, UUID)
TEXT_GETTER(nvmlDeviceGetName, NAME)

#define GETTER(function, op, type)                                                                                     \
    ret_t function(device_t d, type *out) { struct reply r; ret_t code = ask(op, d, 0, 0, &r); if (!code) *out = (type)r.a; return code; }
GETTER(nvmlDeviceGetTotalEnergyConsumption, ENERGY, unsigned long long)
GETTER(nvmlDeviceGetPowerUsage, POWER_USAGE, unsigned)
GETTER(nvmlDeviceGetPowerManagementLimit, GET_LIMIT, unsigned)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, DEFAULT_LIMIT, unsigned)
GETTER(nvmlDeviceGetEnforcedPowerLimit, ENFORCED_LIMIT, unsigned)
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, EVENT_REASONS, unsigned long long)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, EVENT_REASONS, unsigned long long)
GETTER(nvmlDeviceGetArchitecture, ARCHITECTURE, unsigned)
GETTER(nvmlDeviceGetPersistenceMode, PERSISTENCE, unsigned)
GETTER(nvmlDeviceGetC2cModeInfoV, C2C_MODE, unsigned)

ret_t nvmlDeviceGetComputeMode(device_t d, unsigned *out) {
    struct reply r;
    ret_t code = ask(CHECK, d, 0, 0, &r);
    if (!code) *out = 0;
    return code;
}
ret_t nvmlDeviceSetPowerManagementLimit(device_t d, unsigned limit) {
    struct reply r;
    return ask(SET_LIMIT, d, limit, 0, &r);
}

#define PAIR_GETTER(function, op)                                                                                      \
    ret_t function(device_t d, unsigned *first, unsigned *second) {                                                      \
        struct reply r;                                                                                                \
        ret_t code = ask(op, d, 0, 0, &r);                                                                             \
        if (!code) { *first = (unsigned)r.a; *second = (unsigned)r.b; }                                                \
        return code;                                                                                                   \
    }
PAIR_GETTER(nvmlDeviceGetPowerManagementLimitConstraints, LIMIT_RANGE)
PAIR_GETTER(nvmlDeviceGetMigMode, MIG_MODE)
PAIR_GETTER(nvmlDeviceGetCudaComputeCapability, CAPABILITY)

struct rates { unsigned gpu, memory; };
ret_t nvmlDeviceGetUtilizationRates(device_t d, struct rates *out) {
    struct reply r;
    ret_t code = ask(UTILIZATION, d, 0, 0, &r);
    if (!code) *out = (struct rates){(unsigned)r.a, (unsigned)r.b};
    return code;
}

ret_t nvmlDeviceGetTemperature(device_t d, int sensor, unsigned *out) {
    struct reply r;
    ret_t code = ask(TEMPERATURE, d, (uint64_t)sensor, 0, &r);
    if (!code) *out = (unsigned)r.a;
    return code;
}
struct temperature { unsigned version; int sensor, celsius; };
ret_t nvmlDeviceGetTemperatureV(device_t d, struct temperature *out) {
    unsigned celsius;
    if (out->version != 0x100000Cu) return VERSION;
    ret_t code = nvmlDeviceGetTemperature(d, out->sensor, &celsius);
    if (!code) out->celsius = (int)celsius;
    return code;
}
ret_t nvmlDeviceGetClockInfo(device_t d, int kind, unsigned *out) {
    struct reply r;
    ret_t code = ask(CLOCK, d, (uint64_t)kind, 0, &r);
    if (!code) *out = (unsigned)r.a;
    return code;
}

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };
ret_t nvmlDeviceGetMemoryInfo(device_t d, struct memory *out) {
    struct reply r;
    ret_t code = ask(MEMORY, d, 0, 0, &r);
    if (!code) *out = (struct memory){r.a, r.a - r.b, r.b};
    return code;
}
ret_t nvmlDeviceGetMemoryInfo_v2(device_t d, struct memory_v2 *out) {
    struct reply r;
    if (out->version != 0x02000028u) return VERSION;
    ret_t code = ask(MEMORY, d, 0, 0, &r);
    if (!code) *out = (struct memory_v2){out->version, r.a, 0, r.a - r.b, r.b};
    return code;
}

union value { double d; int si; unsigned ui; unsigned long ul; unsigned long long ull; long long sll; unsigned short us; };
struct field { uint32_t id, scope; int64_t timestamp, latency_us; int type; ret_t code; union value value; };
ret_t nvmlDeviceGetFieldValues(device_t d, int count, struct field *fields) {
    for (int i = 0; i < count; i++) {
        struct reply r = {0};
        ret_t code = ask(FIELD, d, fields[i].id, fields[i].scope, &r);
        if (code && r.count != 1) return code; /* the board, not the field */
        fields[i].code = code;
        if (code) continue;
        fields[i].timestamp = (int64_t)r.c;
        fields[i].type = (int)r.b; /* 1: unsigned int, 3: unsigned long long */
        if (r.b == 3) fields[i].value.ull = r.a;
        else fields[i].value.ui = (unsigned)r.a;
    }
    return OK;
}

struct process_info { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
ret_t nvmlDeviceGetComputeRunningProcesses_v3(device_t d, unsigned *count, struct process_info *out) {
    struct reply r;
    ret_t code = ask(PROCESSES, d, 0, 0, &r);
    if (code) return code;
    unsigned room = out ? *count : 0;
    *count = r.count;
    if (r.count > room) return TOO_SMALL;
    for (unsigned i = 0; i < r.count; i++)
        out[i] = (struct process_info){r.u.processes[i].pid, (unsigned long long)r.u.processes[i].memory_mib << 20, ~0u, ~0u};
    return OK;
}
ret_t nvmlDeviceGetComputeRunningProcesses_v2(device_t d, unsigned *count, struct process_info *out) {
    return nvmlDeviceGetComputeRunningProcesses_v3(d, count, out);
}
ret_t nvmlDeviceGetGraphicsRunningProcesses_v3(device_t d, unsigned *count, struct process_info *out) {
    struct reply r;
    (void)out;
    ret_t code = ask(CHECK, d, 0, 0, &r);
    if (!code) *count = 0;
    return code;
}
ret_t nvmlDeviceGetGraphicsRunningProcesses_v2(device_t d, unsigned *count, struct process_info *out) {
    return nvmlDeviceGetGraphicsRunningProcesses_v3(d, count, out);
}

struct utilization_sample { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; };
ret_t nvmlDeviceGetProcessUtilization(device_t d, struct utilization_sample *out, unsigned *count, unsigned long long since_us) {
    struct reply r;
    ret_t code = ask(PROCESSES, d, since_us, 0, &r);
    if (code) return code;
    if (!r.count) return 6;
    unsigned room = out ? *count : 0;
    *count = r.count;
    if (r.count > room) return TOO_SMALL;
    for (unsigned i = 0; i < r.count; i++)
        out[i] = (struct utilization_sample){r.u.processes[i].pid, r.a, r.u.processes[i].sm_percent, 0, 0, 0};
    return OK;
}
