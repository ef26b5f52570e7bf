package nbd.launcher;

import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;

/**
 * A handler of signals that passes them on to the child process, instead of ending this one.
 *
 * <p>The JDK's {@code sun.misc.Signal} is reached by reflection, since javac does not show it to
 * code for Java 8. On a Java without it the launcher works, but passes no signals on.
 */
final class SignalForwarder implements InvocationHandler {
  private static final String[] SIGNALS = {"TERM", "INT", "HUP", "USR1", "USR2"};

  private final List<String> early = new ArrayList<>();
  private Process child;

  /** Handles signals from now on; they are kept until there is a child. */
  void install() {
    try {
      Class<?> signal = Class.forName("sun.misc.Signal");
      Class<?> handler = Class.forName("sun.misc.SignalHandler");
      Object forwarder =
          Proxy.newProxyInstance(
              SignalForwarder.class.getClassLoader(), new Class<?>[] {handler}, this);
      Method handle = signal.getMethod("handle", signal, handler);
      for (String name : SIGNALS) {
        try {
          handle.invoke(null, signal.getConstructor(String.class).newInstance(name), forwarder);
        } catch (ReflectiveOperationException e) {
          // This Java uses the signal itself, or the system has no such signal.
        }
      }
    } catch (ReflectiveOperationException e) {
      // A Java without sun.misc.Signal.
    }
  }

  /** Sends the child the signals that have come so far, and all that follow. */
  synchronized void forwardTo(Process process) {
    child = process;
    for (String name : early) {
      send(name);
    }
  }

  /** Called by the JDK, in a new thread for each signal. */
  @Override
  public synchronized Object invoke(Object proxy, Method method, Object[] arguments) {
    if (method.getName().equals("handle")) {
      String name = arguments[0].toString().substring("SIG".length());
      if (child == null) {
        early.add(name);
      } else {
        send(name);
      }
    }
    return null;
  }

  private void send(String name) {
    if (name.equals("TERM")) {
      child.destroy();
      return;
    }
    try {
      // The shell's builtin: a small system may lack the program kill.
      new ProcessBuilder("/bin/sh", "-c", "kill -s " + name + " " + pidOf(child)).start();
    } catch (IOException | ReflectiveOperationException e) {
      child.destroy();
    }
  }

  private static Object pidOf(Process process) throws ReflectiveOperationException {
    try {
      return Process.class.getMethod("pid").invoke(process);
    } catch (NoSuchMethodException e) {
      // Java 8.
      Field pid = process.getClass().getDeclaredField("pid");
      pid.setAccessible(true);
      return pid.get(process);
    }
  }
}
